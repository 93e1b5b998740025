"""Messages about encoders that cannot be attacked."""

import re
import shutil
import subprocess
import sys

import pytest
import tensorflow as tf

from tests.exported import (
    PIXELS,
    SIZE,
    colours,
    make_encoder,
    mean_colour,
    save,
    two_outputs,
)
from tfadv.attacks.black_box import SavedEncoder
from tfadv.config.errors import UserError
from tfadv.config.schema import BlackBox
from tfadv.models.export import export_encoder


def test_several_outputs_are_listed_for_choice(tmp_path):
    path = save(tmp_path, two_outputs)
    with pytest.raises(UserError, match=r"embedding, logits.*black_box\.output"):
        SavedEncoder(path, BlackBox(), SIZE)


def test_an_output_that_is_not_there_is_an_error(tmp_path):
    path = save(tmp_path, two_outputs)
    with pytest.raises(UserError, match="embedding, logits"):
        SavedEncoder(path, BlackBox(output="features"), SIZE)


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
def test_an_input_that_is_no_batch_of_images_is_an_error_that_names_it(tmp_path, shape, dtype):
    def constant(images):
        return {"out": tf.zeros((tf.shape(images)[0], 2))}

    path = save(tmp_path, constant, shape, dtype)
    expected = f"images {dtype.name} {tf.TensorShape(shape)}"
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
    "one number an image, rank 1": (lambda colour: colour[:, 0], r"float32 \(2,\)"),
    "a scalar": (tf.reduce_mean, r"float32 \(\)"),
    "no dimension": (lambda colour: colour[:, :0], r"float32 \(2, 0\)"),
    "one for the batch": (lambda colour: colour[:1], r"float32 \(1, 3\) for 2 images"),
    "another batch size": (lambda colour: tf.tile(colour, (2, 1)), r"\(4, 3\) for 2 images"),
    "not finite": (lambda colour: colour / 0.0, "not finite"),
    "beyond float32": (lambda colour: tf.cast(colour, tf.float64) * 1e300, "not finite"),
}


@pytest.mark.parametrize("name", BAD_FEATURES)
def test_outputs_that_are_no_features_are_an_error(tmp_path, name):
    change, message = BAD_FEATURES[name]
    path = save(tmp_path, lambda images: {"out": change(mean_colour(images)["colour"])})
    with pytest.raises(UserError, match=message):
        SavedEncoder(path, BlackBox(), SIZE)


def test_features_that_stop_being_finite_later_are_an_error(tmp_path):
    def logarithm(images):
        return {"out": tf.math.log(1.0 - mean_colour(images)["colour"])}  # white: -infinity

    black_box = SavedEncoder(save(tmp_path, logarithm), BlackBox(), SIZE)
    with pytest.raises(UserError, match="not finite"):
        black_box(colours(3, 255))


def test_features_whose_shape_changes_later_are_an_error(tmp_path):
    def as_many_as_images(images):
        colour = mean_colour(images)["colour"]
        return {"out": tf.tile(colour, (1, tf.shape(images)[0]))}

    black_box = SavedEncoder(save(tmp_path, as_many_as_images), BlackBox(), SIZE)
    with pytest.raises(UserError, match=r"features of shape \(9,\) and, before, of shape \(6,\)"):
        black_box(colours(0, 1, 2))


def test_an_encoder_that_hangs_ends_the_process_with_one_line(tmp_path):
    """It hangs at white images only. No Python exception can interrupt TensorFlow."""

    def spin(images):
        colour = mean_colour(images)["colour"]
        is_black = tf.reduce_max(colour) < 0
        return {"out": tf.while_loop(lambda _: not is_black, lambda c: [c + 1], [colour])[0]}

    path = save(tmp_path, spin)
    code = """if True:
        import sys
        import numpy as np
        from tfadv.attacks.black_box import SavedEncoder
        from tfadv.config.schema import BlackBox
        black = np.zeros((2, 32, 32, 3), np.uint8)
        encoder = SavedEncoder(sys.argv[1], BlackBox(timeout=10), 32, black)
        print("black", flush=True)
        encoder(np.full((3, 32, 32, 3), 255, np.uint8))
        """
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("black\n", 2), done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"run.py: encoder {path} has not returned for 10 s (3 images): ")
    assert "black_box.timeout" in line


def test_an_error_inside_the_graph_is_one_line_that_says_what_failed(tmp_path):
    def only_squares_of_48(images):
        tf.debugging.assert_equal(tf.shape(images)[1], 48, "wants images of 48 pixels")
        return mean_colour(images)

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


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "encoder"
    export_encoder(make_encoder("conv1"), SIZE, folder)
    return folder


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_one_line_that_names_it(exported, tmp_path, damage):
    damaged = tmp_path / "encoder"
    shutil.copytree(exported, damaged)
    DAMAGE[damage](damaged)
    with pytest.raises(UserError, match=re.escape(str(damaged))) as caught:
        SavedEncoder(str(damaged), BlackBox(), SIZE)
    assert "\n" not in str(caught.value)
