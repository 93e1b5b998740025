"""Encoders whose features depend on how one asks for them, and on more than the image."""

import subprocess

import numpy as np
import pytest
import tensorflow as tf

from tests.exported import PIXELS, mean_colour, save
from tests.public_people import Halves, make_dataset, make_part
from tfadv.attacks.black_box import SavedEncoder
from tfadv.attacks.kernel import KernelDecoder
from tfadv.attacks.ridge import RidgeDecoder
from tfadv.attacks.stability import BATCH, BATCH_SIZE, CALLS, PROCESS, Stability
from tfadv.attacks.suite import Suite
from tfadv.config.errors import UserError
from tfadv.config.schema import BlackBox
from tfadv.evaluation.leakage_measures import MEASURES
from tfadv.evaluation.verdicts import strongest
from tfadv.modes.loading import load_encoders

IMAGES = make_part(6, 2)[0]  # 24 of 32 pixels, as the data set's test images
BATCHES = [IMAGES[:16], IMAGES[16:]]


class Encoder:
    """An encoder of ten values: what it hides, and what it shows."""

    feature_shape, split = (10,), None

    def __init__(self):
        self.random = np.random.default_rng(0)
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        return np.float32(self.encode(images))

    def hidden(self, images):
        """The thumbnail that it hides."""
        halves = Halves()(images)
        return np.concatenate([halves, halves[:, :4] ** 2], axis=1)

    def shown(self, images):
        """Yes or no to one question, ten times."""
        is_bright = images.mean((1, 2, 3), keepdims=True)[:, 0, 0] > 130
        return np.where(is_bright, 1.0, -1.0).repeat(10, axis=1)

    def noise(self, images):
        return self.random.normal(size=(len(images), 10))


class Honest(Encoder):
    def encode(self, images):
        return self.hidden(images)


class BatchSizeSwitch(Encoder):
    """It hides the thumbnail from batches."""

    def encode(self, images):
        return self.hidden(images) if len(images) == 1 else self.shown(images)


class SwitchAtPairs(Encoder):
    """It hides the thumbnail from batches of more than two images, and from single images."""

    def encode(self, images):
        return self.hidden(images) if len(images) == 2 else self.shown(images)


class SwitchBehindNoise(Encoder):
    """A batch-size switch with new noise at each call."""

    def encode(self, images):
        feature = self.hidden(images) if len(images) == 1 else self.shown(images)
        return feature + self.noise(images)


class SwitchOfSigns(Encoder):
    """A batch gets noise; a single image its thumbnail times a random sign: both have mean 0."""

    def encode(self, images):
        if len(images) > 1:
            return self.noise(images)
        return self.hidden(images) * self.random.choice([-1.0, 1.0])


class QuietSwitchBehindNoise(Encoder):
    """A batch-size switch in one value, where the others have noise of 1,000 times its size."""

    def encode(self, images):
        feature = 1000 * self.noise(images)
        feature[:, 0] = self.noise(images)[:, 0]
        feature[:, 0] += 5 * self.hidden(images)[:, 0] if len(images) == 1 else 0
        return feature


class FirstCall(Encoder):
    """It hides the thumbnail but from the first call."""

    def encode(self, images):
        return self.hidden(images) if self.calls == 1 else self.shown(images)


class FirstCallWithoutNoise(Encoder):
    """All calls but the first have noise."""

    def encode(self, images):
        return self.hidden(images) + (self.calls > 1) * self.noise(images)


class LaterCalls(Encoder):
    """It hides the thumbnail from the calls before and during the attacks."""

    def encode(self, images):
        return self.hidden(images) if self.calls > 200 else self.shown(images)


class LaterCallsBehindNoise(LaterCalls):
    def encode(self, images):
        return super().encode(images) + self.noise(images)


class Reversal(Encoder):
    """It gives the features of a batch in another order."""

    def encode(self, images):
        return self.hidden(images)[::-1]


class RowShuffle(Encoder):
    """It shuffles the features of a batch."""

    def encode(self, images):
        return self.random.permutation(self.hidden(images))


class BatchKey(Encoder):
    """It multiplies the features of a batch by signs that are drawn from the batch."""

    def encode(self, images):
        key = np.random.default_rng(int(images.sum())).choice([-1.0, 1.0], 10)
        return self.hidden(images) * key


class BatchNormalization(Encoder):
    """No malice: a layer that was exported in training mode."""

    def encode(self, images):
        feature = self.hidden(images)
        return (feature - feature.mean(0)) / (feature.std(0) + 1e-3)


class NewProcess(Honest):
    """It hides the thumbnail from the process of the attacks."""

    def encode(self, images):
        return self.shown(images)

    def in_new_process(self, batches, times):
        return np.stack([np.float32(self.hidden(np.concatenate(batches)))] * times)


def check(encoder):
    stability = Stability("theirs", encoder, BATCHES)
    stability.check_quickly()
    for _ in range(300):  # attacks
        encoder(IMAGES)
    stability.check()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (BatchSizeSwitch, BATCH_SIZE),
        (SwitchAtPairs, BATCH_SIZE),
        (SwitchBehindNoise, BATCH_SIZE),
        (SwitchOfSigns, BATCH_SIZE),
        (QuietSwitchBehindNoise, BATCH_SIZE),
        (FirstCall, CALLS),
        (FirstCallWithoutNoise, CALLS),
        (LaterCalls, CALLS),
        (LaterCallsBehindNoise, CALLS),
        (Reversal, BATCH),
        (RowShuffle, BATCH_SIZE),
        (BatchKey, BATCH),
        (BatchNormalization, BATCH),
        (NewProcess, PROCESS),
    ],
)
def test_a_feature_that_depends_on_more_than_its_image_is_refused(kind, reason):
    with pytest.raises(UserError) as caught:
        check(kind())
    assert str(caught.value) == (
        f"the features of theirs depend on {reason}, and not on the image alone, so that attacks "
        f"cannot measure what it leaks: export it in inference mode (training=False), with nothing "
        f"kept between calls"
    )


def test_a_switch_of_the_batch_size_is_refused_before_the_attacks():
    stability = Stability("theirs", BatchSizeSwitch(), BATCHES)
    with pytest.raises(UserError, match=BATCH_SIZE):
        stability.check_quickly()


# Encoders that are no deception


class Rounding(Encoder):
    """Float rounding that differs from batch size to batch size."""

    def encode(self, images):
        return self.hidden(images) * (1 + 1e-6 * np.sin(len(images) * np.arange(10)))


class Codes(Encoder):
    """Codes of 64 bits, of which rounding flips one in 200 where it lies at the edge."""

    feature_shape = (64,)

    def encode(self, images):
        weights = np.random.default_rng(0).normal(size=(10, 64))
        values = (self.hidden(images) - 0.1) @ weights
        return np.where(values + 0.01 * np.sin(len(images)) * np.abs(values).mean() > 0, 1.0, -1.0)


class EightBits(Codes):
    """Values of 256 levels, which rounding moves by one level now and then."""

    def encode(self, images):
        weights = np.random.default_rng(0).normal(size=(10, 64))
        values = self.hidden(images) @ weights + 1e-4 * np.sin(len(images))
        return np.round(values * 32) / 32


class Noise(Encoder):
    def encode(self, images):
        return self.hidden(images) + self.noise(images)


class SharedSign(Encoder):
    """The images of a call have one sign in common."""

    def encode(self, images):
        return (0.7 + self.hidden(images)) * self.random.choice([-1.0, 1.0])


class HeavyTails(Encoder):
    """Noise of which some is huge."""

    def encode(self, images):
        return self.hidden(images) + self.random.standard_cauchy((len(images), 10))


class SharedNoise(Encoder):
    """The images of a call have one noise in common."""

    def encode(self, images):
        return self.hidden(images) + self.noise(images[:1])


class Sign(Encoder):
    """The thumbnail times a random sign for each image of each call; the sign can be told."""

    def encode(self, images):
        signs = self.random.choice([-1.0, 1.0], (len(images), 1))
        return signs * (0.7 + self.hidden(images))


class ImageKeyedNoise(Encoder):
    """The noise of 100 values is drawn from the image."""

    feature_shape = (100,)

    def encode(self, images):
        weights = np.random.default_rng(0).normal(size=(10, 100))
        seeds = images.astype(np.int64).sum((1, 2, 3))
        noise = [np.random.default_rng(seed).normal(size=100) for seed in seeds]
        return self.hidden(images) @ weights + np.stack(noise)


class Sparse(Encoder):
    """Sparse values, most of them zero."""

    def encode(self, images):
        return np.maximum(self.hidden(images) - 0.3, 0) * (1 + 1e-6 * np.sin(len(images)))


@pytest.mark.parametrize(
    "kind",
    [
        Honest,
        Rounding,
        Codes,
        EightBits,
        Sparse,
        Noise,
        SharedNoise,
        HeavyTails,
        Sign,
        SharedSign,
        ImageKeyedNoise,
    ],
)
def test_rounding_and_noise_are_no_reason_to_refuse(kind):
    check(kind())


def test_an_encoder_of_codes_really_flips_some_bits():
    encode = Codes()
    flipped = np.mean(
        encode(IMAGES)[:10] != np.concatenate([encode(IMAGES[:7]), encode(IMAGES[7:10])])
    )
    assert 0 < flipped <= 0.01


# Noise that the mean of all queries hides behind


def explained(result, images):
    """The share of the variance of test images that the strongest attack explains, and its name."""
    name, score = strongest(result.attacks, MEASURES["pixels"])
    pixels = images / 127.5 - 1.0
    return 1 - score.value / np.square(pixels - pixels.mean(0)).mean(), name


def attack(folder, encoder):
    attacks = {"ridge": RidgeDecoder(), "kernel": KernelDecoder()}
    suite = Suite(make_dataset(make_part(45, 0)), [], folder / "cache", attacks, replicates=20)
    return suite.run("theirs", encoder, folder, repeats=16)


def test_a_random_sign_per_query_hides_nothing_from_the_strongest_attack(tmp_path):
    class WithoutSign(Sign):
        def encode(self, images):
            return 0.7 + self.hidden(images)

    told, _ = explained(attack(tmp_path / "told", WithoutSign()), IMAGES)
    result = attack(tmp_path / "sign", Sign())
    found, name = explained(result, IMAGES)
    assert result.is_random
    assert found > 0.9 * told
    assert name.endswith("-queries-1")


def test_near_copies_are_tried_against_noise_that_is_keyed_by_the_image(tmp_path):
    keyed = attack(tmp_path / "keyed", ImageKeyedNoise()).attacks
    assert list(keyed) == [
        "ridge",
        "kernel",
        "ridge-near-copies",
        "kernel-near-copies",
    ]
    pixels = {name: result.scores["mse"].value for name, result in keyed.items()}
    assert pixels["ridge-near-copies"] < 0.9 * pixels["ridge"]
    assert list(attack(tmp_path / "honest", Honest()).attacks) == ["ridge", "kernel"]


# SavedModels


class Counter(tf.Module):
    """A SavedModel that gives the mean colour at its first call, and one bit of it later."""

    def __init__(self):
        super().__init__()
        self.calls = tf.Variable(0)

    @tf.function(input_signature=[tf.TensorSpec(PIXELS, tf.float32, "images")])
    def encode(self, images):
        colour = mean_colour(images)["colour"]
        is_first = self.calls.assign_add(1) == 1
        return {"out": tf.where(is_first, colour, tf.sign(colour))}


def export(folder, module):
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.encode})
    return str(folder)


def load(path, images=IMAGES, **settings):
    return SavedEncoder(path, BlackBox(**settings), images.shape[1], images)


def test_a_saved_model_that_leaks_at_its_first_call_is_refused(tmp_path):
    stability = Stability("theirs", load(export(tmp_path, Counter())), BATCHES)
    with pytest.raises(UserError, match=CALLS):
        stability.check_quickly()


def test_a_new_process_gives_what_the_first_calls_of_a_saved_model_give(tmp_path):
    path = export(tmp_path, Counter())
    features = load(path, low=0.0).in_new_process(BATCHES, 2)
    assert features.shape == (2, 24, 3)
    colours = IMAGES.mean((1, 2)) / 255
    np.testing.assert_allclose(features[0, :16], colours[:16], atol=1e-5)  # the first call
    np.testing.assert_array_equal(features[0, 16:], 1.0)
    np.testing.assert_array_equal(features[1], 1.0)


def test_an_encoder_that_fails_in_a_new_process_is_one_line(tmp_path, monkeypatch):
    encoder = load(save(tmp_path, mean_colour))
    done = subprocess.CompletedProcess([], 1, "", "a warning\nencoder theirs does not load: x\n")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: done)
    with pytest.raises(UserError) as caught:
        encoder.in_new_process(BATCHES)
    assert str(caught.value) == (
        f"encoder {encoder.path} does not work in a new process: encoder theirs does not load: x"
    )


def rounded(images):
    """An encoder of values from 0 to 255 that rounds its features."""
    return {"out": tf.round(mean_colour(images)["colour"] / 16.0)}


def test_an_encoder_that_is_called_in_the_wrong_range_is_an_error_with_the_ranges_to_try(tmp_path):
    path = save(tmp_path, rounded)
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(caught.value) == (
        f"encoder {path} gives the same feature for 24 different images, called with float32 from "
        f"-1, black, to 1, white (--config.black_box.low, .high); try the range that it was made "
        f"for: --config.black_box.low=0 --config.black_box.high=1, or --config.black_box.low=0 "
        f"--config.black_box.high=255"
    )
    assert len(np.unique(load(path, low=0.0, high=255.0)(IMAGES))) > 3


def test_a_constant_encoder_of_integers_is_an_error(tmp_path):
    def constant(images):
        return {"out": tf.ones_like(mean_colour(images)["colour"])}

    path = save(tmp_path, constant, dtype=tf.uint8)
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(caught.value) == (
        f"encoder {path} gives the same feature for 24 different images, called with uint8 from 0, "
        f"black, to 255, white"
    )


@pytest.mark.parametrize(
    ("shape", "named", "way"),
    [
        ((None, 64, 64, 3), "64 x 64", "set --config.data.size=64"),
        ((None, 224, None, 3), "224 x any", "set --config.data.size=224"),
        (
            (None, 112, 112, 3),
            "112 x 112",
            "export it with a resize inside, for images [N, None, None, 3], since data.size cannot "
            "be 112",
        ),
        (
            (None, 64, 32, 3),
            "64 x 32",
            "export it with a resize inside, for images [N, None, None, 3]",
        ),
    ],
)
def test_an_input_of_another_size_is_an_error_that_names_both(tmp_path, shape, named, way):
    path = save(tmp_path, mean_colour, shape)
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(caught.value) == (
        f"encoder {path} takes images of {named} pixels and data.size is 32: {way}"
    )


def test_an_input_of_the_same_size_is_no_error(tmp_path):
    assert load(save(tmp_path, mean_colour, (None, 32, 32, 3))).feature_shape == (3,)


def test_an_encoder_that_divides_by_an_images_deviation_works_on_real_images(tmp_path):
    def standardised(images):
        deviation = tf.math.reduce_std(images, (1, 2, 3), keepdims=True)
        tf.debugging.assert_greater(deviation, 0.0)
        return mean_colour(images / deviation)

    assert load(save(tmp_path, standardised)).feature_shape == (3,)


@pytest.mark.parametrize(
    ("dtype", "settings", "expected"),
    [
        (tf.uint8, {}, "uint8 from 0, black, to 255, white"),
        (
            tf.float32,
            {"low": 0.0},
            "float32 from 0, black, to 1, white (--config.black_box.low, .high)",
        ),
    ],
)
def test_the_range_in_use_is_said(tmp_path, dtype, settings, expected):
    assert load(save(tmp_path, mean_colour, dtype=dtype), **settings).range == expected


def test_the_range_of_an_encoder_that_is_not_ours_is_printed(tmp_path, capsys):
    path = save(tmp_path, mean_colour, dtype=tf.uint8)
    encoders, classifiers = load_encoders({"theirs": path}, BlackBox(), make_dataset())
    assert capsys.readouterr().out == "theirs: called with uint8 from 0, black, to 255, white\n"
    assert (list(encoders), classifiers) == (["theirs"], {})
    np.testing.assert_array_equal(encoders["theirs"].first[0], IMAGES)
