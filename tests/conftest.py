import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as startup.import_tensorflow does
# OpenBLAS's threads spin while they wait. With other work on the cores, an eigenvalue problem of
# 1000 dimensions takes ten seconds on two threads, and half a second on one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """Puts files with slow tests first, so that no worker waits long at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def tiny_faces(tmp_path_factory):
    """Prepares `synthetic/tiny` and returns its settings: 120 private, 60 public, 20 test images.

    There are five images of each identity. With a fifth held out, no part of a split is empty.
    """
    from data_prep import synthetic
    from tfadv.config.schema import Data

    folder = tmp_path_factory.mktemp("tiny_faces")
    synthetic.prepare(folder, "tiny")
    return Data(dir=str(folder), dataset="synthetic/tiny", size=32, held_out=0.2)
