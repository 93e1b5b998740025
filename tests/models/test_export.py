import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.exported import (
    ATTRIBUTES,
    SIZE,
    THRESHOLDS,
    assert_same_features,
    export_all,
    features_of,
    make_classifier,
    make_encoder,
)
from tfadv.data.images import decode_image
from tfadv.models.encoder import Encoder
from tfadv.models.export import export_classifier, export_encoder
from tfadv.models.resnet import SPLITS

SHAPES = {"square": (3, SIZE, SIZE), "odd": (1, 45, 37), "small": (3, 17, 64)}

# Run by another process, where importing this project fails.
LOAD = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tfadv", "data_prep"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
import numpy as np
import tensorflow as tf

inputs = dict(np.load(sys.argv[1]))
results = {}
for folder in sys.argv[3:]:
    signatures = tf.saved_model.load(folder + "/encoder").signatures
    for name, images in inputs.items():
        signature = signatures["encode" if images.dtype == np.float32 else "serving_default"]
        for output, value in signature(images=tf.constant(images)).items():
            results[f"{folder}/{name}/{output}"] = value.numpy()
assert "tfadv" not in sys.modules
np.savez(sys.argv[2], **results)
"""


@pytest.fixture(scope="module")
def inputs():
    random = np.random.default_rng(0)
    images = {
        name: random.integers(0, 256, (*shape, 3), np.uint8) for name, shape in SHAPES.items()
    }
    colours = random.integers(0, 256, (3, 1, 1, 3), np.uint8)
    images["one_colour"] = np.broadcast_to(colours, (3, 51, 29, 3))
    images["one_colour_square"] = np.broadcast_to(colours, (3, SIZE, SIZE, 3))
    images["floats"] = random.uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
    return images


@pytest.fixture(scope="module")
def encoders():
    made = {split: make_encoder(split) for split in SPLITS}
    return made | {"bfloat16": make_encoder("fc", "mixed_bfloat16")}


@pytest.fixture(scope="module")
def exported(encoders, tmp_path_factory):
    return export_all(encoders, tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def elsewhere(exported, inputs, tmp_path_factory):
    """What exported encoders give in a new process that has TensorFlow and not this project."""
    folder = tmp_path_factory.mktemp("elsewhere")
    np.savez(folder / "inputs.npz", **inputs)
    folders = sorted(str(path) for path in exported.iterdir())
    subprocess.run(
        [sys.executable, "-I", "-c", LOAD, folder / "inputs.npz", folder / "outputs.npz", *folders],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
    )
    results = np.load(folder / "outputs.npz")
    return {key.removeprefix(f"{exported}/"): results[key] for key in results}


@pytest.mark.parametrize("split", SPLITS)
def test_serving_gives_the_models_features_in_a_process_without_tfadv(
    encoders, elsewhere, inputs, split
):
    expected = features_of(encoders[split], inputs["square"])
    assert expected.shape == (3, *encoders[split].feature_shape(SIZE))
    assert_same_features(elsewhere[f"{split}/square/features"], expected)


@pytest.mark.parametrize("split", SPLITS)
def test_encode_gives_the_models_features_in_a_process_without_tfadv(
    encoders, elsewhere, inputs, split
):
    expected = encoders[split](inputs["floats"], training=False).numpy()
    assert_same_features(elsewhere[f"{split}/floats/features"], expected)


@pytest.mark.parametrize("name", ["odd", "small"])
def test_serving_crops_and_resizes_images_of_any_size_as_in_training(
    encoders, elsewhere, inputs, name
):
    trained_on = [decode_image(tf.io.encode_png(image), SIZE) for image in inputs[name]]
    expected = features_of(encoders["fc"], np.stack(trained_on))
    assert_same_features(elsewhere[f"fc/{name}/features"], expected)


def test_an_image_of_one_colour_has_the_same_features_at_any_size(elsewhere):
    features = elsewhere["fc/one_colour/features"]
    assert_same_features(features, elsewhere["fc/one_colour_square/features"])


def test_the_signatures_return_features_and_nothing_else(elsewhere):
    assert {key.rpartition("/")[2] for key in elsewhere} == {"features"}


def test_an_encoder_trained_in_bfloat16_is_exported_in_float32(encoders, elsewhere, inputs):
    exact = Encoder(18, 0.125, "fc", dtype="float32")
    exact.build((None, SIZE, SIZE, 3))
    exact.set_weights(encoders["bfloat16"].get_weights())
    expected = features_of(exact, inputs["square"])
    assert_same_features(elsewhere["bfloat16/square/features"], expected)


@pytest.mark.parametrize("split", SPLITS)
def test_an_export_holds_the_encoders_variables_and_nothing_else(encoders, exported, split):
    stored = tf.train.list_variables(str(exported / split / "encoder" / "variables" / "variables"))
    shapes = [tuple(shape) for name, shape in stored if name != "_CHECKPOINTABLE_OBJECT_GRAPH"]
    expected = [tuple(variable.shape) for variable in encoders[split].variables]
    assert sorted(shapes) == sorted(expected)


def test_no_file_is_larger_than_the_variables_and_their_names(encoders, exported):
    folder = exported / "fc" / "encoder"
    values = 4 * sum(int(np.prod(variable.shape)) for variable in encoders["fc"].variables)
    data = sum(path.stat().st_size for path in folder.rglob("variables.data*"))
    assert values <= data < values + 2**15


def test_the_folder_holds_only_files_that_are_needed(exported):
    folder = exported / "fc" / "encoder"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "encoder.json",
        "fingerprint.pb",
        "saved_model.pb",
        "variables/variables.data-00000-of-00001",
        "variables/variables.index",
    }


def _places() -> set[str]:
    """Returns folders of this machine that a traceback would name."""
    import keras

    packages = [Path(module.__file__).parent for module in (tf, keras, np)]
    project = Path(__file__).parents[2]
    folders = [project, Path.cwd(), Path.home(), tempfile.gettempdir(), sys.prefix, *packages]
    return {str(folder) for folder in folders} - {"/"}


def _names() -> list[str]:
    """Returns the names of the user and of this machine, if they have names."""
    names = {os.environ.get("USER", ""), Path.home().name, platform.node()}
    return sorted(names - {"", "localhost"})


FORBIDDEN = {
    "a path": [r"[\w-]\.py\b", r"site-packages", *map(re.escape, sorted(_places()))],
    "the user or the host": [rf"\b{re.escape(name)}\b" for name in _names()],
    "another network": ["decoder", "discriminator", "classifier", "inverter", "protector"],
    "an optimiser": ["adam", "optimi[sz]er", "learning_rate", "momentum", "velocity"],
    "the task": ["smiling", "wearing_hat", "young", "attribute_?names", "label", "identities"],
    "the project": ["tfadv", "data_prep"],
}


@pytest.mark.parametrize("what", FORBIDDEN)
@pytest.mark.parametrize("split", ["conv2", "fc"])
def test_the_encoders_files_do_not_name(exported, encoders, split, what):
    folder = exported / split / "encoder"
    _assert_absent(FORBIDDEN[what], folder, encoders[split].variables)


@pytest.mark.parametrize("what", ["a path", "the user or the host", "an optimiser", "the project"])
def test_the_classifiers_files_do_not_name(exported, encoders, what):
    folder = exported / "fc" / "classifier"
    _assert_absent(FORBIDDEN[what], folder, make_classifier(encoders["fc"]).variables)


def _assert_absent(patterns, folder, variables):
    values = 4 * sum(int(np.prod(variable.shape)) for variable in variables)
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if ".data" in path.name:
            content = _without_tensors(path, values)
        for pattern in patterns:
            found = re.search(pattern.encode(), content, re.IGNORECASE)
            assert not found, f"{path.name}: {content[found.start() - 60 : found.end() + 60]}"


def _without_tensors(path, values):
    """Returns the object graph, which lies before, between or after the tensors."""
    reader = tf.train.load_checkpoint(str(path.parent / "variables"))
    graph = reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")
    # The rest is a few bytes: the length and the checksum of the string.
    assert path.stat().st_size - values - len(graph) < 64
    return graph


def test_encoder_json_says_how_to_call_the_encoder_and_nothing_about_its_training(exported):
    assert json.loads((exported / "conv2" / "encoder" / "encoder.json").read_text()) == {
        "input": {"name": "images", "dtype": "uint8", "range": [0, 255], "size": SIZE},
        "split": "conv2",
        "feature_shape": [8, 8, 8],  # a quarter of 32 pixels, an eighth of 64 channels
        "feature_dtype": "float32",
    }


def serve(folder, images):
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return signature(images=tf.constant(images))["features"].numpy()


def test_what_a_killed_export_left_is_replaced(tmp_path, inputs):
    folder, partial = tmp_path / "encoder", tmp_path / ".encoder.partial"
    for left in (folder / "variables" / "variables.index", partial / "fingerprint.pb.tmp12ab"):
        left.parent.mkdir(parents=True)
        left.write_text("half of it")
    encoder = make_encoder()
    export_encoder(encoder, SIZE, folder)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert {Path(name).parts[0] for name in files} == {"encoder"}
    assert not any("tmp" in name for name in files)
    assert_same_features(serve(folder, inputs["square"]), features_of(encoder, inputs["square"]))


def test_later_training_does_not_change_the_export(tmp_path, inputs):
    encoder = make_encoder("conv1")
    export_encoder(encoder, SIZE, tmp_path / "encoder")
    expected = features_of(encoder, inputs["square"])
    for variable in encoder.variables:
        variable.assign(variable + 1.0)
    assert_same_features(serve(tmp_path / "encoder", inputs["square"]), expected)


@pytest.mark.parametrize("split", ["fc", "conv4"])
def test_the_classifier_gives_the_models_logits_and_their_probabilities(encoders, tmp_path, split):
    classifier = make_classifier(encoders[split])
    shape = encoders[split].feature_shape(SIZE)
    export_classifier(classifier, shape, ATTRIBUTES, THRESHOLDS, tmp_path)
    features = np.random.default_rng(0).normal(size=(5, *shape)).astype(np.float32)
    outputs = tf.saved_model.load(str(tmp_path)).signatures["serving_default"](
        features=tf.constant(features)
    )
    logits = outputs["logits"].numpy()
    assert set(outputs) == {"hidden", "logits", "probabilities"}
    assert_same_features(logits, classifier(features, training=False).numpy())
    np.testing.assert_allclose(outputs["probabilities"], 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_the_classifier_of_hard_predictions_is_certain(tmp_path):
    count = len(ATTRIBUTES)
    identity = keras.layers.Identity()
    export_classifier(identity, (count,), ATTRIBUTES, THRESHOLDS, tmp_path, is_hard=True)
    features = tf.constant([[1.0, -1.0] * count], tf.float32)[:, :count]
    outputs = tf.saved_model.load(str(tmp_path)).signatures["serving_default"](features=features)
    np.testing.assert_array_equal(outputs["logits"], features)
    np.testing.assert_array_equal(outputs["probabilities"], features > 0)


def test_classifier_json_names_the_attributes_in_order(exported):
    assert json.loads((exported / "fc" / "classifier" / "classifier.json").read_text()) == {
        "feature_shape": [1000],
        "attributes": ATTRIBUTES,
        "thresholds": list(THRESHOLDS),
    }
