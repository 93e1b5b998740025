import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfadv.attacks.black_box import SavedEncoder, load_classifier
from tfadv.config.errors import UserError
from tfadv.config.schema import BlackBox
from tfadv.data.images import decode_image
from tfadv.models.classifier import Classifier
from tfadv.models.encoder import Encoder
from tfadv.models.export import export_classifier, export_encoder
from tfadv.models.resnet import SPLITS

SIZE = 32
ATTRIBUTES = ["Smiling", "Wearing_Hat", "Young"]
THRESHOLDS = np.array([-0.5, 0.1, 2.0])
SHAPES = {"square": (3, SIZE, SIZE), "odd": (1, 45, 37), "small": (3, 17, 64)}

# Run by a process of its own, where importing this project fails.
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


def make_encoder(split="fc", dtype="float32"):
    """An encoder whose moving statistics are not those it began with."""
    tf.keras.utils.set_random_seed(SPLITS.index(split))
    encoder = Encoder(18, 0.125, split, dtype=dtype)
    encoder(tf.random.uniform((4, SIZE, SIZE, 3), -1, 1), training=True)
    return encoder


def make_classifier(encoder):
    classifier = Classifier(encoder.split, len(ATTRIBUTES), 18, 0.125, dtype="float32")
    classifier.build((None, *encoder.feature_shape(SIZE)))
    return classifier


def features_of(encoder, images):
    """What the model itself says of uint8 pictures of its own size."""
    return encoder(tf.cast(images, tf.float32) / 127.5 - 1.0, training=False).numpy()


def assert_same_features(features, expected):
    assert features.dtype == np.float32
    assert features.shape == expected.shape
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.fixture(scope="module")
def inputs():
    random = np.random.default_rng(0)
    pictures = {
        name: random.integers(0, 256, (*shape, 3), np.uint8) for name, shape in SHAPES.items()
    }
    colours = random.integers(0, 256, (3, 1, 1, 3), np.uint8)
    pictures["one_colour"] = np.broadcast_to(colours, (3, 51, 29, 3))
    pictures["one_colour_square"] = np.broadcast_to(colours, (3, SIZE, SIZE, 3))
    pictures["floats"] = random.uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
    return pictures


@pytest.fixture(scope="module")
def encoders():
    made = {split: make_encoder(split) for split in SPLITS}
    return made | {"bfloat16": make_encoder("fc", "mixed_bfloat16")}


@pytest.fixture(scope="module")
def exported(encoders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    for name, encoder in encoders.items():
        export_encoder(encoder, SIZE, folder / name / "encoder")
    classifier = make_classifier(encoders["fc"])
    export_classifier(classifier, (1000,), ATTRIBUTES, THRESHOLDS, folder / "fc" / "classifier")
    return folder


@pytest.fixture(scope="module")
def elsewhere(exported, inputs, tmp_path_factory):
    """What the exported encoders give in a fresh process with TensorFlow alone."""
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
def test_serving_cuts_and_resizes_pictures_of_any_size_as_the_training_pictures_were(
    encoders, elsewhere, inputs, name
):
    trained_on = [decode_image(tf.io.encode_png(picture), SIZE) for picture in inputs[name]]
    expected = features_of(encoders["fc"], np.stack(trained_on))
    assert_same_features(elsewhere[f"fc/{name}/features"], expected)


def test_a_picture_of_one_colour_has_the_same_features_at_any_size(elsewhere):
    features = elsewhere["fc/one_colour/features"]
    assert_same_features(features, elsewhere["fc/one_colour_square/features"])


def test_the_signatures_return_features_alone(elsewhere):
    assert {key.rpartition("/")[2] for key in elsewhere} == {"features"}


def test_an_encoder_trained_in_bfloat16_is_exported_in_float32(encoders, elsewhere, inputs):
    exact = Encoder(18, 0.125, "fc", dtype="float32")
    exact.build((None, SIZE, SIZE, 3))
    exact.set_weights(encoders["bfloat16"].get_weights())
    expected = features_of(exact, inputs["square"])
    assert_same_features(elsewhere["bfloat16/square/features"], expected)


@pytest.mark.parametrize("split", SPLITS)
def test_holds_the_encoders_variables_and_nothing_else(encoders, exported, split):
    stored = tf.train.list_variables(str(exported / split / "encoder" / "variables" / "variables"))
    shapes = [tuple(shape) for name, shape in stored if name != "_CHECKPOINTABLE_OBJECT_GRAPH"]
    expected = [tuple(variable.shape) for variable in encoders[split].variables]
    assert sorted(shapes) == sorted(expected)


def test_no_file_is_larger_than_the_variables_and_their_names(encoders, exported):
    folder = exported / "fc" / "encoder"
    values = 4 * sum(int(np.prod(variable.shape)) for variable in encoders["fc"].variables)
    data = sum(path.stat().st_size for path in folder.rglob("variables.data*"))
    assert values <= data < values + 2**15


def test_the_folder_holds_no_file_that_is_not_needed(exported):
    folder = exported / "fc" / "encoder"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "encoder.json",
        "fingerprint.pb",
        "saved_model.pb",
        "variables/variables.data-00000-of-00001",
        "variables/variables.index",
    }


def _places() -> set[str]:
    """Folders of this machine that a traceback would name."""
    import keras

    packages = [Path(module.__file__).parent for module in (tf, keras, np)]
    project = Path(__file__).parents[2]
    folders = [project, Path.cwd(), Path.home(), tempfile.gettempdir(), sys.prefix, *packages]
    return {str(folder) for folder in folders} - {"/"}


def _names() -> list[str]:
    """The user's name and this machine's, where they have one."""
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
    """The object graph that lies in front of, between or after the tensors; they are noise."""
    reader = tf.train.load_checkpoint(str(path.parent / "variables"))
    graph = reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")
    # Nothing else fits in: a few bytes for the string's length and checksum.
    assert path.stat().st_size - values - len(graph) < 64
    return graph


def test_encoder_json_says_how_to_call_it_and_nothing_about_its_training(exported):
    assert json.loads((exported / "conv2" / "encoder" / "encoder.json").read_text()) == {
        "input": {"name": "images", "dtype": "uint8", "range": [0, 255], "size": SIZE},
        "split": "conv2",
        "feature_shape": [8, 8, 8],  # a quarter of 32 pixels, an eighth of 64 channels
        "feature_dtype": "float32",
    }


def test_what_a_killed_export_left_behind_is_replaced(tmp_path, inputs):
    folder, partial = tmp_path / "encoder", tmp_path / ".encoder.partial"
    for left in (folder / "variables" / "variables.index", partial / "fingerprint.pb.tmp12ab"):
        left.parent.mkdir(parents=True)
        left.write_text("half of it")
    encoder = make_encoder()
    export_encoder(encoder, SIZE, folder)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert {Path(name).parts[0] for name in files} == {"encoder"}
    assert not any("tmp" in name for name in files)
    features = SavedEncoder(str(folder), BlackBox(), SIZE)(inputs["square"])
    assert_same_features(features, features_of(encoder, inputs["square"]))


def test_the_export_follows_later_training_no_more(tmp_path, inputs):
    encoder = make_encoder("conv1")
    export_encoder(encoder, SIZE, tmp_path / "encoder")
    expected = features_of(encoder, inputs["square"])
    for variable in encoder.variables:
        variable.assign(variable + 1.0)
    black_box = SavedEncoder(str(tmp_path / "encoder"), BlackBox(), SIZE)
    assert_same_features(black_box(inputs["square"]), expected)


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
    assert set(outputs) == {"logits", "probabilities"}
    assert_same_features(logits, classifier(features, training=False).numpy())
    np.testing.assert_allclose(outputs["probabilities"], 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_classifier_json_names_the_attributes_in_order(exported):
    assert json.loads((exported / "fc" / "classifier" / "classifier.json").read_text()) == {
        "feature_shape": [1000],
        "attributes": ATTRIBUTES,
        "thresholds": list(THRESHOLDS),
    }


def test_the_classifier_beside_an_encoder_is_found(encoders, exported):
    classify = load_classifier(str(exported / "fc" / "encoder"))
    assert classify.attributes == tuple(ATTRIBUTES)
    assert classify.feature_shape == (1000,)
    np.testing.assert_array_equal(classify.thresholds, THRESHOLDS)
    assert classify(np.zeros((2, 1000), np.float32)).shape == (2, 3)


def test_a_classifier_whose_thresholds_were_never_tuned_has_none(exported, tmp_path):
    shutil.copytree(exported / "fc", tmp_path / "fc")
    path = tmp_path / "fc/classifier/classifier.json"
    description = json.loads(path.read_text())
    del description["thresholds"]
    path.write_text(json.dumps(description))
    assert load_classifier(str(tmp_path / "fc" / "encoder")).thresholds is None


def test_an_encoder_without_a_classifier_beside_it_has_none(exported):
    assert load_classifier(str(exported / "conv2" / "encoder")) is None


@pytest.mark.parametrize("split", SPLITS)
def test_the_black_box_of_an_encoder_of_ours_gives_its_features(encoders, exported, inputs, split):
    black_box = SavedEncoder(str(exported / split / "encoder"), BlackBox(), SIZE)
    assert (black_box.split, black_box.feature_shape) == (
        split,
        encoders[split].feature_shape(SIZE),
    )
    expected = features_of(encoders[split], inputs["square"])
    assert_same_features(black_box(inputs["square"]), expected)


def test_black_box_settings_for_foreign_encoders_leave_ours_alone(exported, inputs):
    path = str(exported / "fc" / "encoder")
    plain = SavedEncoder(path, BlackBox(), SIZE)(inputs["square"])
    settings = BlackBox(output="embedding", low=0.0, high=255.0)
    np.testing.assert_array_equal(SavedEncoder(path, settings, SIZE)(inputs["square"]), plain)


# Encoders that are not ours.

PIXELS = (None, None, None, 3)


def save(folder, function, shape=PIXELS, dtype=tf.float32, names=("serving_default",)):
    """Saves a function of pictures as a SavedModel; returns its path."""
    module = tf.Module()
    call = tf.function(function, input_signature=[tf.TensorSpec(shape, dtype, "pictures")])
    tf.saved_model.save(module, str(folder), signatures=dict.fromkeys(names, call))
    return str(folder)


def mean_colour(pictures):
    """[N, 3] from pictures of any type."""
    return {"colour": tf.reduce_mean(tf.cast(pictures, tf.float32), (1, 2))}


def colours(*values):
    """Pictures of one colour each."""
    return np.stack([np.full((SIZE, SIZE, 3), value, np.uint8) for value in values])


@pytest.mark.parametrize("dtype", [tf.uint8, tf.int32, tf.int64])
def test_an_integer_input_gets_the_pixels_as_they_are(tmp_path, dtype):
    black_box = SavedEncoder(save(tmp_path, mean_colour, dtype=dtype), BlackBox(), SIZE)
    np.testing.assert_array_equal(black_box(colours(0, 77, 255))[:, 0], [0, 77, 255])


@pytest.mark.parametrize("dtype", [tf.float16, tf.float32, tf.float64])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (-127.5, 127.5)])
def test_a_floating_point_input_gets_pixels_from_low_to_high(tmp_path, low, high, dtype):
    path = save(tmp_path, mean_colour, dtype=dtype)
    features = SavedEncoder(path, BlackBox(low=low, high=high), SIZE)(colours(0, 51, 255))
    expected = [low, low + 0.2 * (high - low), high]
    tolerance = 1e-3 if dtype == tf.float16 else 1e-5
    np.testing.assert_allclose(features[:, 0], expected, atol=tolerance * (high - low))


@pytest.mark.parametrize("shape", [(None, 48, 40, 3), (None, 20, None, 3), (None, None, 50, 3)])
def test_pictures_are_resized_to_the_size_that_an_input_asks_for(tmp_path, shape):
    def size_and_colour(pictures):
        sides = tf.cast(tf.shape(pictures)[1:3], tf.float32)
        colour = mean_colour(pictures)["colour"]
        return {"out": tf.concat([tf.ones_like(colour[:, :2]) * sides, colour], 1)}

    path = save(tmp_path, size_and_colour, shape, tf.uint8)
    features = SavedEncoder(path, BlackBox(), SIZE)(colours(9, 200))
    height, width = (side or SIZE for side in shape[1:3])
    np.testing.assert_array_equal(features, [[height, width, 9, 9, 9], [height, width, *[200] * 3]])


def two_outputs(pictures):
    colour = mean_colour(pictures)["colour"]
    return {"logits": colour[:, :1] + 1.0, "embedding": colour}


def test_several_outputs_are_listed_for_choice(tmp_path):
    path = save(tmp_path, two_outputs)
    with pytest.raises(UserError, match=r"embedding, logits.*black_box\.output"):
        SavedEncoder(path, BlackBox(), SIZE)


def test_an_output_that_is_not_there_is_an_error(tmp_path):
    path = save(tmp_path, two_outputs)
    with pytest.raises(UserError, match="embedding, logits"):
        SavedEncoder(path, BlackBox(output="features"), SIZE)


@pytest.mark.parametrize(("output", "dimensions"), [("logits", 1), ("embedding", 3)])
def test_an_output_is_chosen_by_its_name(tmp_path, output, dimensions):
    path = save(tmp_path, two_outputs)
    assert SavedEncoder(path, BlackBox(output=output), SIZE).feature_shape == (dimensions,)


def test_the_output_features_is_chosen_among_several(tmp_path):
    def with_features(pictures):
        return two_outputs(pictures) | {"features": pictures[:, 0, :2, 0]}

    assert SavedEncoder(save(tmp_path, with_features), BlackBox(), SIZE).feature_shape == (2,)


def test_the_only_signature_is_taken_whatever_its_name(tmp_path):
    path = save(tmp_path, mean_colour, names=["embed"])
    assert SavedEncoder(path, BlackBox(), SIZE).feature_shape == (3,)


def test_serving_default_is_taken_among_several_signatures(tmp_path):
    module = tf.Module()
    spec = tf.TensorSpec(PIXELS, tf.float32)
    signatures = {
        "other": tf.function(two_outputs, input_signature=[spec]),
        "serving_default": tf.function(mean_colour, input_signature=[spec]),
    }
    tf.saved_model.save(module, str(tmp_path), signatures=signatures)
    assert SavedEncoder(str(tmp_path), BlackBox(), SIZE).feature_shape == (3,)


def test_several_signatures_without_serving_default_are_an_error(tmp_path):
    path = save(tmp_path, mean_colour, names=["first", "second"])
    with pytest.raises(UserError, match="serving_default; it has first, second"):
        SavedEncoder(path, BlackBox(), SIZE)


def test_a_model_without_signatures_is_an_error(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path))
    with pytest.raises(UserError, match="serving_default; it has none"):
        SavedEncoder(str(tmp_path), BlackBox(), SIZE)


def test_a_model_that_has_no_place_for_signatures_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(tf.saved_model, "load", lambda path: object())
    with pytest.raises(UserError, match="serving_default; it has none"):
        SavedEncoder(str(tmp_path), BlackBox(), SIZE)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((None, 3072), tf.float32),
        ((None, 3, 32, 32), tf.float32),
        ((None, 3, None, None), tf.float32),
        ((None, 32, 32, 1), tf.float32),
        ((1, None, None, 3), tf.float32),
        ((None,), tf.string),
        ((None, None, None, 3), tf.string),
        ((None, None, None, 3), tf.int8),
        (None, tf.float32),
    ],
    ids=str,
)
def test_an_input_that_is_no_batch_of_pictures_is_named(tmp_path, shape, dtype):
    def constant(pictures):
        return {"out": tf.zeros((tf.shape(pictures)[0], 2))}

    path = save(tmp_path, constant, shape, dtype)
    expected = f"pictures {dtype.name} {tf.TensorShape(shape)}"
    with pytest.raises(UserError, match=re.escape(expected)):
        SavedEncoder(path, BlackBox(), SIZE)


def test_two_inputs_are_an_error(tmp_path):
    def both(first, second):
        return {"out": tf.reduce_mean(first + second, (1, 2))}

    specs = [tf.TensorSpec(PIXELS, tf.float32, name) for name in ("first", "second")]
    function = tf.function(both, input_signature=specs)
    tf.saved_model.save(tf.Module(), str(tmp_path), signatures=function)
    with pytest.raises(UserError, match=r"one input.*first.*second"):
        SavedEncoder(str(tmp_path), BlackBox(), SIZE)


BAD_FEATURES = {
    "integers": (lambda colour: tf.cast(colour, tf.int32), r"int32 \(2, 3\)"),
    "one number a picture, rank 1": (lambda colour: colour[:, 0], r"float32 \(2,\)"),
    "a scalar": (tf.reduce_mean, r"float32 \(\)"),
    "no dimension": (lambda colour: colour[:, :0], r"float32 \(2, 0\)"),
    "one for the batch": (lambda colour: colour[:1], r"float32 \(1, 3\) for 2 pictures"),
    "another batch size": (lambda colour: tf.tile(colour, (2, 1)), r"\(4, 3\) for 2 pictures"),
    "not finite": (lambda colour: colour / 0.0, "not finite"),
    "beyond float32": (lambda colour: tf.cast(colour, tf.float64) * 1e300, "not finite"),
}


@pytest.mark.parametrize("name", BAD_FEATURES)
def test_features_that_are_none_are_an_error(tmp_path, name):
    change, message = BAD_FEATURES[name]
    path = save(tmp_path, lambda pictures: {"out": change(mean_colour(pictures)["colour"])})
    with pytest.raises(UserError, match=message):
        SavedEncoder(path, BlackBox(), SIZE)


def test_features_that_stop_being_finite_later_are_an_error(tmp_path):
    def logarithm(pictures):
        return {"out": tf.math.log(1.0 - mean_colour(pictures)["colour"])}  # white: -infinity

    black_box = SavedEncoder(save(tmp_path, logarithm), BlackBox(), SIZE)
    with pytest.raises(UserError, match="not finite"):
        black_box(colours(3, 255))


def test_features_whose_shape_changes_later_are_an_error(tmp_path):
    def as_many_as_pictures(pictures):
        colour = mean_colour(pictures)["colour"]
        return {"out": tf.tile(colour, (1, tf.shape(pictures)[0]))}

    black_box = SavedEncoder(save(tmp_path, as_many_as_pictures), BlackBox(), SIZE)
    with pytest.raises(UserError, match=r"gives features \(9,\), and gave \(6,\) before"):
        black_box(colours(0, 1, 2))


def test_an_encoder_that_hangs_ends_the_process_with_one_line(tmp_path):
    """At white pictures, so not at once: TensorFlow can't be interrupted by what Python raises."""

    def spin(pictures):
        colour = mean_colour(pictures)["colour"]
        is_black = tf.reduce_max(colour) < 0
        return {"out": tf.while_loop(lambda _: not is_black, lambda c: [c + 1], [colour])[0]}

    path = save(tmp_path, spin)
    code = """if True:
        import sys
        import numpy as np
        from tfadv.attacks.black_box import SavedEncoder
        from tfadv.config.schema import BlackBox
        encoder = SavedEncoder(sys.argv[1], BlackBox(timeout=20), 32)
        print("black", flush=True)
        encoder(np.full((3, 32, 32, 3), 255, np.uint8))
        """
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("black\n", 2), done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"run.py: encoder {path} has not answered for 20 s (3 pictures): ")
    assert "black_box.timeout" in line


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_features_of_any_floating_point_type_come_as_float32(tmp_path, dtype):
    path = save(
        tmp_path, lambda p: {"out": tf.cast(mean_colour(p)["colour"], dtype)}, dtype=tf.uint8
    )
    features = SavedEncoder(path, BlackBox(), SIZE)(colours(128))
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, [[128, 128, 128]])


def test_an_error_inside_the_graph_is_one_line_that_says_what_failed(tmp_path):
    def only_squares_of_48(pictures):
        tf.debugging.assert_equal(tf.shape(pictures)[1], 48, "wants pictures of 48 pixels")
        return mean_colour(pictures)

    path = save(tmp_path, only_squares_of_48)
    with pytest.raises(UserError, match="48 pixels") as caught:
        SavedEncoder(path, BlackBox(), SIZE)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "an empty graph": lambda folder: (folder / "saved_model.pb").write_bytes(b""),
    "half a graph": lambda folder: _cut(folder / "saved_model.pb"),
    "no graph": lambda folder: (folder / "saved_model.pb").write_bytes(b"not a graph\n" * 9),
    "half the variables": lambda folder: _cut(next((folder / "variables").glob("*.data*"))),
    "no variables": lambda folder: next((folder / "variables").glob("*.index")).unlink(),
    "an encoder.json that is none": lambda folder: (folder / "encoder.json").write_text("{"),
    "an encoder.json of others": lambda folder: (folder / "encoder.json").write_text("[]"),
    "an unknown split": lambda folder: (folder / "encoder.json").write_text('{"split": "x"}'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_one_line_that_names_it(tmp_path, damage):
    export_encoder(make_encoder("conv1"), SIZE, tmp_path)
    DAMAGE[damage](tmp_path)
    with pytest.raises(UserError, match=re.escape(str(tmp_path))) as caught:
        SavedEncoder(str(tmp_path), BlackBox(), SIZE)
    assert "\n" not in str(caught.value)


# Gradients


@pytest.mark.parametrize("split", SPLITS)
def test_an_encoder_of_ours_has_its_models_gradients(encoders, exported, inputs, split):
    path = str(exported / split / "encoder")
    encode = SavedEncoder(path, BlackBox(low=0.0), SIZE).differentiable()
    images = tf.constant(inputs["floats"])
    gradients = []
    for function in (encode, encoders[split]):
        with tf.GradientTape() as tape:
            tape.watch(images)
            total = tf.reduce_sum(tf.square(function(images)))
        gradients.append(tape.gradient(total, images).numpy())
    assert np.abs(gradients[1]).max() > 0
    scale = np.abs(gradients[1]).max()
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("dtype", [tf.float16, tf.float32, tf.float64])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 255.0)])
@pytest.mark.parametrize("shape", [PIXELS, (None, 48, 40, 3)])
def test_a_foreign_encoder_with_gradients_gives_the_black_boxes_features(
    tmp_path, dtype, low, high, shape
):
    black_box = SavedEncoder(
        save(tmp_path, mean_colour, shape, dtype), BlackBox(low=low, high=high), SIZE
    )
    encode, pictures = black_box.differentiable(), colours(0, 51, 255)
    images = tf.constant(pictures / 127.5 - 1.0, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(images)
        features = encode(images)
    assert features.dtype == tf.float32
    tolerance = 2e-3 if dtype == tf.float16 else 1e-5
    np.testing.assert_allclose(features, black_box(pictures), atol=tolerance * (high - low))
    # The mean moves by a share of 1/N^2 with each pixel, from -1 to 1 as from low to high.
    totals = tf.reduce_sum(tape.gradient(features, images), (1, 2))
    np.testing.assert_allclose(totals, np.full((3, 3), (high - low) / 2), rtol=0.02)


@pytest.mark.parametrize("dtype", [tf.uint8, tf.int32])
def test_a_foreign_encoder_of_whole_numbers_has_no_gradients(tmp_path, dtype):
    path = save(tmp_path, mean_colour, dtype=dtype)
    assert SavedEncoder(path, BlackBox(), SIZE).differentiable() is None
