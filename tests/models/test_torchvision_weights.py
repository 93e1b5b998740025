import runpy
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tfadv.models.classifier import Classifier
from tfadv.models.encoder import Encoder
from tfadv.models.resnet import SPLITS
from tfadv.models.weights import load_torchvision

FIXTURES = Path(__file__).parents[1] / "fixtures"
MAKER = runpy.run_path(str(FIXTURES / "make_resnet50.py"))


@pytest.fixture(scope="module")
def weights():
    """Random torchvision-named tensors, by depth."""
    return {depth: MAKER["random_weights"](depth) for depth in (18, 50)}


@pytest.fixture(scope="module")
def resnet18(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(weights[18], path)
    return path


@pytest.fixture(scope="module")
def resnet50(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet50.npz"
    np.savez(path, **weights[50])
    return path


def write(path, tensors):
    np.savez(path, **tensors)
    return path


def stem_only(weights):
    """Tensors of split point conv1: the only ones that its encoder needs."""
    return {name: value for name, value in weights[18].items() if name.startswith(("conv1", "bn1"))}


@pytest.mark.parametrize("depth", [18, 50])
def test_features_equal_pytorch_at_every_split_point(depth, resnet18, resnet50):
    encoder = Encoder(depth)
    load_torchvision(resnet50 if depth == 50 else resnet18, encoder)
    features = encoder.normalize(MAKER["pictures"]() / np.float32(127.5) - 1)
    with np.load(FIXTURES / "resnet50_torchvision.npz") as expected:
        for split, stage in zip(SPLITS, encoder.stages, strict=True):
            features = stage(features)
            values = expected[f"{depth}/{split}/summary"]
            difference = np.linalg.norm(MAKER["summary"](features.numpy()) - values)
            assert difference < 1e-4 * np.linalg.norm(values), split
            norm = expected[f"{depth}/{split}/norm"]
            assert np.linalg.norm(features) == pytest.approx(norm, rel=1e-4), split


@pytest.mark.parametrize("split", SPLITS)
def test_encoder_and_classifier_share_one_file(split, resnet18, weights):
    encoder, classifier = Encoder(18, split=split), Classifier(split, 5, 18)
    load_torchvision(resnet18, encoder, classifier)
    stages = [*encoder.stages, *classifier.stages]
    first, last = stages[0].layers[0], stages[-1].layers[0]
    block = stages[4].layers[0]
    np.testing.assert_array_equal(first.kernel, weights[18]["conv1.weight"].transpose((2, 3, 1, 0)))
    np.testing.assert_array_equal(
        block.shortcut[1].moving_variance, weights[18]["layer4.0.downsample.1.running_var"]
    )
    np.testing.assert_array_equal(last.kernel, weights[18]["fc.weight"].T)


def test_file_needs_only_the_tensors_up_to_the_split(tmp_path, weights):
    path = write(tmp_path / "stem.npz", stem_only(weights))
    encoder = Encoder(18, split="conv1")
    load_torchvision(path, encoder)
    np.testing.assert_array_equal(encoder.stages[0].layers[1].gamma, weights[18]["bn1.weight"])


def test_half_precision_file_is_accepted(tmp_path, weights):
    halves = {name: value.astype(np.float16) for name, value in stem_only(weights).items()}
    encoder = Encoder(18, split="conv1")
    load_torchvision(write(tmp_path / "half.npz", halves), encoder)
    gamma = encoder.stages[0].layers[1].gamma
    np.testing.assert_allclose(gamma, weights[18]["bn1.weight"], rtol=1e-3)


def test_error_names_missing_tensors(tmp_path, weights):
    path = write(tmp_path / "stem.npz", stem_only(weights))
    with pytest.raises(
        ValueError,
        match=r"stem.npz doesn't fit ResNet-18 .* no tensor layer1.0.conv1.weight, .* more",
    ):
        load_torchvision(path, Encoder(18, split="conv2"))


def test_error_says_that_fc_is_missing(tmp_path, weights):
    headless = {k: value for k, value in weights[18].items() if not k.startswith("fc.")}
    path = write(tmp_path / "headless.npz", headless)
    load_torchvision(path, Encoder(18, split="avgpool"))
    with pytest.raises(
        ValueError, match=r"headless.npz doesn't fit .*: it has no tensor fc.weight, fc.bias$"
    ):
        load_torchvision(path, Encoder(18, split="fc"))


def test_error_names_tensors_of_a_deeper_network(tmp_path, weights):
    block = {name.replace("layer1.1", "layer1.2"): value for name, value in weights[18].items()}
    path = write(tmp_path / "resnet34.npz", weights[18] | block)
    with pytest.raises(ValueError, match=r"the network has no tensor layer1.2.conv1.weight, .*"):
        load_torchvision(path, Encoder(18, split="conv2"))


def test_error_names_tensor_and_both_shapes_and_nothing_is_set(resnet18):
    encoder = Encoder(18, width=0.5, split="conv1")
    encoder.build((None, 64, 64, 3))
    before = encoder.get_weights()
    expected = r"18.safetensors .* width 0.5: conv1.weight .* \(64, 3, 7, 7\), not \(32, 3, 7, 7\)"
    with pytest.raises(ValueError, match=expected):
        load_torchvision(resnet18, encoder)
    np.testing.assert_equal(encoder.get_weights(), before)


@pytest.mark.parametrize("name", ["no.npz", "no.safetensors"])
def test_error_names_a_missing_file(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} can't be read as"):
        load_torchvision(tmp_path / name, Encoder(18, split="conv1"))


@pytest.mark.parametrize("name", ["broken.npz", "broken.safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"not a weights file at all"])
def test_error_names_an_unreadable_file(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} can't be read as"):
        load_torchvision(path, Encoder(18, split="conv1"))


def test_single_array_is_no_npz(tmp_path):
    path = tmp_path / "single.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"single.npz can't be read as npz"):
        load_torchvision(path, Encoder(18, split="conv1"))


def test_pickled_arrays_are_refused(tmp_path):
    path = write(tmp_path / "pickled.npz", {"conv1.weight": np.array([{}], dtype=object)})
    with pytest.raises(ValueError, match=r"pickled.npz can't be read as npz"):
        load_torchvision(path, Encoder(18, split="conv1"))
