import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.exported import (
    ATTRIBUTES,
    PIXELS,
    SIZE,
    THRESHOLDS,
    assert_same_features,
    colours,
    export_all,
    features_of,
    make_encoder,
    mean_colour,
    save,
    two_outputs,
)
from tfadv.attacks.black_box import (
    AveragedEncoder,
    PredictionsEncoder,
    SavedClassifier,
    SavedEncoder,
    load_classifier,
    predict,
)
from tfadv.config.errors import UserError
from tfadv.config.schema import BlackBox

SPLITS = ("conv1", "fc")  # a map, and a vector with its classifier


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def encoders():
    return {split: make_encoder(split) for split in SPLITS}


@pytest.fixture(scope="module")
def exported(encoders, tmp_path_factory):
    return export_all(encoders, tmp_path_factory.mktemp("exported"))


def test_the_classifier_that_lies_beside_an_encoder_is_found(exported):
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
    assert load_classifier(str(exported / "conv1" / "encoder")) is None


@pytest.mark.parametrize("split", SPLITS)
def test_the_black_box_of_an_encoder_of_ours_gives_its_features(encoders, exported, images, split):
    black_box = SavedEncoder(str(exported / split / "encoder"), BlackBox(), SIZE)
    assert black_box.split == split
    assert black_box.feature_shape == encoders[split].feature_shape(SIZE)
    assert_same_features(black_box(images), features_of(encoders[split], images))


def test_settings_for_foreign_encoders_do_not_change_ours(exported, images):
    path = str(exported / "fc" / "encoder")
    plain = SavedEncoder(path, BlackBox(), SIZE)(images)
    settings = BlackBox(output="embedding", low=0.0, high=255.0)
    np.testing.assert_array_equal(SavedEncoder(path, settings, SIZE)(images), plain)


def test_an_encoder_of_ours_is_attacked_at_the_size_of_its_training_only(exported):
    path = str(exported / "fc" / "encoder")
    with pytest.raises(UserError) as caught:
        SavedEncoder(path, BlackBox(), 64)
    assert str(caught.value) == (
        f"encoder {path} was trained at 32 pixels and data.size is 64: at another size it seems "
        f"to leak less; set --config.data.size=32"
    )


# Encoders that are not ours.


@pytest.mark.parametrize("dtype", [tf.uint8, tf.int32, tf.int64])
def test_an_integer_input_gets_the_pixels_as_they_are(tmp_path, dtype):
    black_box = SavedEncoder(save(tmp_path, mean_colour, dtype=dtype), BlackBox(), SIZE)
    np.testing.assert_array_equal(black_box(colours(0, 77, 255))[:, 0], [0, 77, 255])


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (-1.0, 1.0, tf.float32),
        (0.0, 1.0, tf.float64),
        (0.0, 255.0, tf.float16),
        (-127.5, 127.5, tf.float32),
    ],
)
def test_a_floating_point_input_gets_pixels_from_low_to_high(tmp_path, low, high, dtype):
    path = save(tmp_path, mean_colour, dtype=dtype)
    features = SavedEncoder(path, BlackBox(low=low, high=high), SIZE)(colours(0, 51, 255))
    expected = [low, low + 0.2 * (high - low), high]
    tolerance = 1e-3 if dtype == tf.float16 else 1e-5
    np.testing.assert_allclose(features[:, 0], expected, atol=tolerance * (high - low))


@pytest.mark.parametrize(("output", "dimensions"), [("logits", 1), ("embedding", 3)])
def test_an_output_is_chosen_by_its_name(tmp_path, output, dimensions):
    path = save(tmp_path, two_outputs)
    assert SavedEncoder(path, BlackBox(output=output), SIZE).feature_shape == (dimensions,)


def test_the_output_features_is_chosen_among_several(tmp_path):
    def with_features(images):
        return two_outputs(images) | {"features": images[:, 0, :2, 0]}

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


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_features_of_any_floating_point_type_come_as_float32(tmp_path, dtype):
    path = save(
        tmp_path, lambda p: {"out": tf.cast(mean_colour(p)["colour"], dtype)}, dtype=tf.uint8
    )
    features = SavedEncoder(path, BlackBox(), SIZE)(colours(128))
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, [[128, 128, 128]])


# Gradients


@pytest.mark.parametrize("split", SPLITS)
def test_an_encoder_of_ours_has_the_gradients_of_its_model(encoders, exported, images, split):
    path = str(exported / split / "encoder")
    encode = SavedEncoder(path, BlackBox(low=0.0), SIZE).differentiable()
    images = tf.constant(images / 127.5 - 1.0, tf.float32)
    gradients = []
    for function in (encode, encoders[split]):
        with tf.GradientTape() as tape:
            tape.watch(images)
            total = tf.reduce_sum(tf.square(function(images)))
        gradients.append(tape.gradient(total, images).numpy())
    assert np.abs(gradients[1]).max() > 0
    scale = np.abs(gradients[1]).max()
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [(tf.float32, -1.0, 1.0), (tf.float16, 0.0, 255.0), (tf.float64, -1.0, 1.0)],
)
def test_a_foreign_encoder_with_gradients_gives_the_black_boxes_features(
    tmp_path, dtype, low, high
):
    black_box = SavedEncoder(
        save(tmp_path, mean_colour, dtype=dtype), BlackBox(low=low, high=high), SIZE
    )
    encode, pixels = black_box.differentiable(), colours(0, 51, 255)
    images = tf.constant(pixels / 127.5 - 1.0, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(images)
        features = encode(images)
    assert features.dtype == tf.float32
    tolerance = 2e-3 if dtype == tf.float16 else 1e-5
    np.testing.assert_allclose(features, black_box(pixels), atol=tolerance * (high - low))
    # From -1 to 1 the mean of N pixels moves from low to high.
    totals = tf.reduce_sum(tape.gradient(features, images), (1, 2))
    np.testing.assert_allclose(totals, np.full((3, 3), (high - low) / 2), rtol=0.02)


@pytest.mark.parametrize("dtype", [tf.uint8, tf.int32])
def test_a_foreign_encoder_that_takes_integers_has_no_gradients(tmp_path, dtype):
    path = save(tmp_path, mean_colour, dtype=dtype)
    assert SavedEncoder(path, BlackBox(), SIZE).differentiable() is None


# Other black boxes


class Noisy:
    """An encoder whose features have new noise at each call."""

    feature_shape, split = (2,), "fc"

    def __init__(self):
        self._random = np.random.default_rng(0)

    def __call__(self, images):
        return np.float32(images[:, 0, 0, :2] + self._random.normal(size=(len(images), 2)))


def test_an_averaged_encoder_averages_new_noise_away():
    images = np.full((50, 4, 4, 3), 7, np.uint8)
    averaged = AveragedEncoder(Noisy(), 100)
    once, often = Noisy()(images), averaged(images)
    assert np.square(once - 7).mean() == pytest.approx(1, abs=0.4)
    assert np.square(often - 7).mean() == pytest.approx(0.01, abs=0.005)
    assert (averaged.feature_shape, averaged.split) == ((2,), "fc")
    np.testing.assert_array_equal(AveragedEncoder(Noisy(), 1)(images), once)
    # The mean of features has no gradient.
    assert not hasattr(averaged, "differentiable")


class Classifier:
    """Logits that are the first two features and their sum."""

    attributes, feature_shape = ("a", "b", "c"), (2,)

    def __init__(self, thresholds=None):
        self.thresholds = thresholds

    hard_predictions = SavedClassifier.hard_predictions

    def __call__(self, features):
        return np.concatenate([features, features.sum(1, keepdims=True)], axis=1)


def encode_colours(images):
    return np.float32(images[:, 0, 0, :2]) - 100.0


PIXEL_PAIRS = np.array([[90, 120], [130, 60], [100, 101]], np.uint8)
LOGITS = np.float32([[-10, 20, 10], [30, -40, -10], [0, 1, 1]])


@pytest.mark.parametrize(
    ("thresholds", "hard", "expected"),
    [
        (None, False, LOGITS),
        (None, True, [[-1, 1, 1], [1, -1, -1], [-1, 1, 1]]),
        (np.array([-20.0, 1.0, 9.0]), True, [[1, 1, 1], [1, -1, -1], [1, -1, -1]]),
    ],
    ids=["logits", "at 0", "at tuned thresholds"],
)
def test_a_service_of_predictions_gives_nothing_but_them(thresholds, hard, expected):
    images = np.zeros((3, 4, 4, 3), np.uint8)
    images[..., :2] = PIXEL_PAIRS[:, None, None]
    service = PredictionsEncoder(encode_colours, Classifier(thresholds), hard=hard)
    predictions = service(images)
    assert predictions.dtype == np.float32
    np.testing.assert_array_equal(predictions, expected)
    assert (service.feature_shape, service.split) == ((3,), None)


def test_predict_returns_labels_and_logits_of_all_batches():
    images = np.zeros((3, 4, 4, 3), np.uint8)
    images[..., :2] = PIXEL_PAIRS[:, None, None]
    labels = np.array([[0, 1, 1], [1, 0, 0], [1, 1, 1]], np.uint8)
    batches = tf.data.Dataset.from_tensor_slices({"images": images, "labels": labels}).batch(2)
    found, logits = predict(encode_colours, Classifier(), batches)
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_array_equal(logits, LOGITS)
