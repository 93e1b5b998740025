import re

import h5py
import numpy as np
import pytest

from tests.models.conftest import SHALLOW
from tfadv.config.errors import UserError
from tfadv.models.vgg import VGGFeatures


def write(path, tensors):
    with h5py.File(path, "w") as file:
        for name, tensor in tensors.items():
            file[name] = tensor
    return str(path)


@pytest.mark.parametrize("name", ["flat.h5", "nested.h5", "short.weights.h5"])
def test_error_names_layer_file_and_deepest_layer(short_files, name):
    pattern = rf"{name} lacks block2_conv2; the deepest layer .* has is block2_conv1"
    with pytest.raises(UserError, match=pattern) as caught:
        VGGFeatures(str(short_files / name), ("block1_conv1", "block3_conv1"), 32)
    assert "\n" not in str(caught.value)


def test_error_names_a_wrong_shape(tmp_path):
    tensors = {"block1_conv1/kernel": np.zeros((3, 3, 3, 32)), "block1_conv1/bias": np.zeros(32)}
    path = write(tmp_path / "narrow.h5", tensors)
    with pytest.raises(UserError, match=r"\(3, 3, 3, 32\).*block1_conv1.*\(3, 3, 3, 64\)"):
        VGGFeatures(path, ("block1_conv1",), 32)


def test_error_for_a_layer_without_bias(tmp_path):
    path = write(tmp_path / "bare.h5", {"block1_conv1/kernel": np.zeros((3, 3, 3, 64))})
    with pytest.raises(UserError, match=r"has shapes \[\(3, 3, 3, 64\)\] for block1_conv1"):
        VGGFeatures(path, ("block1_conv1",), 32)


def test_error_for_values_that_are_not_finite(tmp_path):
    tensors = {
        "block1_conv1/kernel": np.full((3, 3, 3, 64), np.nan),
        "block1_conv1/bias": np.zeros(64),
    }
    path = write(tmp_path / "nan.h5", tensors)
    with pytest.raises(UserError, match="block1_conv1 that are not finite"):
        VGGFeatures(path, ("block1_conv1",), 32)


@pytest.mark.parametrize("name", ["dense_1/kernel", "layers/dense/vars/0", "conv2d/kernel"])
def test_error_for_a_file_without_convolutions(tmp_path, name):
    path = write(tmp_path / "other.h5", {name: np.zeros((4, 4))})
    with pytest.raises(UserError, match=r"other\.h5 holds no convolution of VGG19"):
        VGGFeatures(path, ("block1_conv1",), 32)


def test_error_for_text_in_place_of_numbers(tmp_path):
    tensors = {
        "block1_conv1/kernel": np.full((3, 3, 3, 64), b"a"),
        "block1_conv1/bias": np.full(64, b"a"),
    }
    path = write(tmp_path / "text.h5", tensors)
    with pytest.raises(UserError, match=r"text\.h5 can't be read as \.h5"):
        VGGFeatures(path, ("block1_conv1",), 32)


def test_error_for_a_file_that_is_not_hdf5(tmp_path):
    path = tmp_path / "vgg19.h5"
    path.write_bytes(b"not hdf5" * 100)
    with pytest.raises(UserError, match=r"vgg19\.h5 can't be read as \.h5") as caught:
        VGGFeatures(str(path), ("block1_conv1",), 32)
    assert "\n" not in str(caught.value)


def test_error_for_a_truncated_file(short_files, tmp_path):
    path = tmp_path / "half.h5"
    content = (short_files / "flat.h5").read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"half\.h5 can't be read as \.h5"):
        VGGFeatures(str(path), SHALLOW, 32)


def test_error_for_a_link_to_another_file(short_files, tmp_path):
    path = tmp_path / "link.h5"
    with h5py.File(path, "w") as file:
        file["block1_conv1"] = h5py.ExternalLink(str(short_files / "flat.h5"), "block1_conv1")
    with pytest.raises(UserError, match=r"link\.h5 holds no convolution"):
        VGGFeatures(str(path), ("block1_conv1",), 32)


@pytest.mark.parametrize("path", ["missing.h5", "."])
def test_error_for_a_path_that_is_no_file(path):
    with pytest.raises(UserError, match=f"perceptual.weights is {re.escape(path)}, which is no"):
        VGGFeatures(path, ("block1_conv1",), 32)
