import shutil

import pytest

from tests import runs


@pytest.fixture(scope="session")
def recognizer_run(tiny_faces, tmp_path_factory):
    """The folder of a finished recognizer run."""
    root = tmp_path_factory.mktemp("recognizer")
    runs.write_config(root, tiny_faces.dir)
    assert runs.call(root, "recognizer", "recognizer", "--config.train.steps=10") == 0
    return root / "recognizer"


@pytest.fixture(scope="module")
def root(recognizer_run, tmp_path_factory):
    """A folder with a finished recognizer run."""
    root = tmp_path_factory.mktemp("runs")
    shutil.copytree(recognizer_run, root / "recognizer")
    return root
