import dataclasses
import io
import json
from collections import Counter
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from tests.datasets import SPLITS, first, keys, prepare, read
from tfadv.config.errors import UserError
from tfadv.config.schema import Data
from tfadv.data import pipeline
from tfadv.data.dataset import HELD_OUT, PRIVATE, PUBLIC, TEST, TRAIN, WHOLE, Dataset
from tfadv.data.images import decode_image, decode_images, normalize, resize_square, to_uint8

PARTS = (WHOLE, TRAIN, HELD_OUT)


@pytest.fixture(scope="module")
def dataset(tiny_faces):
    return Dataset(tiny_faces)


def encode(image, extension, *options):
    """Encodes an RGB or greyscale image with OpenCV."""
    bgr = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode(extension, bgr, options)
    assert done
    return encoded.tobytes()


def pillow(encoded):
    """Decodes an image with Pillow."""
    return np.array(Image.open(io.BytesIO(encoded)).convert("RGB"))


# --- images


def test_a_batch_holds_images_labels_and_identities(dataset):
    batch = next(dataset.batches(PRIVATE, WHOLE, 16).as_numpy_iterator())
    assert set(batch) == {"images", "labels", "identity", "index"}
    assert (batch["images"].shape, batch["images"].dtype) == ((16, 32, 32, 3), np.uint8)
    assert batch["labels"].shape == (16, len(dataset.attributes))
    assert batch["labels"].dtype == np.uint8
    assert set(np.unique(batch["labels"])) == {0, 1}
    assert (batch["identity"].shape, batch["identity"].dtype) == ((16,), np.int64)


def test_images_labels_and_identities_are_those_that_are_stored(tiny_faces):
    config = dataclasses.replace(tiny_faces, size=64)  # as they are stored: nothing to resize
    builder = tfds.builder("synthetic/tiny", data_dir=tiny_faces.dir)
    raw = {"image": tfds.decode.SkipDecoding()}
    stored = list(builder.as_dataset(split=PUBLIC, decoders=raw).as_numpy_iterator())
    found = read(Dataset(config).batches(PUBLIC, WHOLE, 16))
    np.testing.assert_array_equal(found["images"], [pillow(e["image"]) for e in stored])
    np.testing.assert_array_equal(found["labels"], [e["attributes"] for e in stored])
    np.testing.assert_array_equal(found["identity"], [e["identity"] for e in stored])


def test_the_last_batch_is_as_small_as_it_comes(dataset):
    sizes = [len(b["images"]) for b in dataset.batches(PUBLIC, WHOLE, 16).as_numpy_iterator()]
    assert sizes == [16, 16, 16, 12]


def test_a_portrait_of_celebas_size_is_cut_to_rows_20_to_198():
    rows = np.broadcast_to(np.arange(218, dtype=np.uint8)[:, None, None], (218, 178, 3))
    image = decode_image(encode(rows, ".png"), 178).numpy()
    np.testing.assert_array_equal(image, rows[20:198])


def test_a_landscape_is_cut_to_its_middle_columns():
    columns = np.broadcast_to(np.arange(100, dtype=np.uint8)[None, :, None], (60, 100, 3))
    image = decode_image(encode(columns, ".png"), 60).numpy()
    np.testing.assert_array_equal(image, columns[:, 20:80])


def colourful(height, width):
    """A smooth image whose channels differ."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("shape", [(218, 178), (178, 218), (101, 100), (64, 64)])
@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_the_square_is_what_pillow_decodes_and_cuts(extension, shape):
    encoded = encode(colourful(*shape), extension)
    whole = pillow(encoded)
    side = min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    expected = whole[top : top + side, left : left + side].astype(int)
    found = decode_image(encoded, side).numpy().astype(int)
    difference = np.abs(found - expected)
    if extension == ".png":
        assert difference.max() == 0
    else:
        # Chroma at the cut is interpolated without what lies outside.
        assert difference[2:-2, 2:-2].max() == 0
        assert difference.max() <= 8


@pytest.mark.parametrize("size", [32, 64, 96, 224])
@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_resizing_is_within_one_level_of_pillows(extension, size):
    encoded = encode(colourful(178, 178), extension)
    whole = Image.fromarray(pillow(encoded))
    expected = np.array(whole.resize((size, size), Image.Resampling.BILINEAR)).astype(int)
    found = decode_image(encoded, size).numpy()
    assert (found.shape, found.dtype) == ((size, size, 3), np.uint8)
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("side", [1, 20, 64, 65, 89, 178])
@pytest.mark.parametrize("size", [32, 64, 224])
def test_resizing_is_tensorflows_to_the_bit(side, size):
    square = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    expected = tf.image.resize(square, (size, size), antialias=True)
    np.testing.assert_array_equal(resize_square(square, size), expected)


@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_stay_as_they_are_when_resized(level):
    encoded = encode(np.full((178, 178, 3), level, np.uint8), ".png")
    for size in (32, 64, 96, 224):
        assert (decode_image(encoded, size).numpy() == level).all()


def test_a_batch_may_hold_images_of_any_shape_and_format():
    encoded = [
        encode(colourful(height, width), extension)
        for height, width in ((218, 178), (64, 90), (20, 20))
        for extension in (".jpg", ".png")
    ]
    found = decode_images(tf.constant(encoded), 64)
    np.testing.assert_array_equal(found, [decode_image(each, 64) for each in encoded])


def test_resizing_averages_what_it_leaves_out():
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    image = decode_image(encode(stripes, ".png"), 32).numpy().astype(int)
    assert np.abs(image[:, 2:-2] - 127.5).max() <= 1


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_greyscale_becomes_three_equal_channels(extension):
    grey = colourful(50, 40)[..., 0]
    encoded = encode(grey, extension, cv2.IMWRITE_JPEG_QUALITY, 100)
    image = decode_image(encoded, 40).numpy()
    assert image.shape == (40, 40, 3)
    np.testing.assert_array_equal(image, image[..., :1].repeat(3, -1))
    assert np.abs(image[..., 0].astype(int) - grey[5:45]).max() <= 2


def test_transparency_is_left_out():
    image = np.dstack([colourful(32, 32), np.zeros((32, 32), np.uint8)])
    _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA))
    decoded = decode_image(encoded.tobytes(), 32).numpy()
    np.testing.assert_array_equal(decoded, image[..., :3])


def test_normalised_images_reach_from_minus_one_to_one():
    normalised = normalize(tf.constant([0, 51, 255], tf.uint8))
    assert normalised.dtype == tf.float32
    np.testing.assert_allclose(normalised, [-1.0, -0.6, 1.0], atol=1e-7)


def test_normalising_loses_none_of_the_256_values():
    values = np.arange(256, dtype=np.uint8)
    back = to_uint8(normalize(values).numpy())
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, values)


def test_what_is_beyond_the_range_is_clipped():
    np.testing.assert_array_equal(to_uint8(np.array([-9.0, -1.01, 1.01, 9.0])), [0, 0, 255, 255])


# --- the parts of a split


@pytest.mark.parametrize("split", SPLITS)
def test_the_parts_of_a_split_are_together_the_split(dataset, split):
    whole, train, held_out = (
        Counter(keys(read(dataset.batches(split, part, 16))["images"]))
        for part in (WHOLE, TRAIN, HELD_OUT)
    )
    assert train + held_out == whole
    assert train
    assert held_out


@pytest.mark.parametrize("split", SPLITS)
def test_the_parts_of_a_split_share_no_identity(dataset, split):
    train, held_out = (
        set(read(dataset.batches(split, part, 16))["identity"]) for part in (TRAIN, HELD_OUT)
    )
    assert not train & held_out


@pytest.mark.parametrize("part", [WHOLE, TRAIN, HELD_OUT])
@pytest.mark.parametrize("split", SPLITS)
def test_the_count_is_the_number_of_images_that_are_read(dataset, split, part):
    number = len(read(dataset.batches(split, part, 16))["images"])
    assert dataset.count(split, part) == number
    assert dataset.count(split, part) == number  # the second answer is remembered


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """1,000 people, one image each, in four shards."""
    people = [(number, f"{number}.png") for number in range(1000)]
    splits = {PRIVATE: people, PUBLIC: people[:8], TEST: people[:8]}
    return prepare(tmp_path_factory.mktemp("crowd"), splits=splits, shards=4)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_held_out_share_is_the_share_of_people_asked_for(crowd, share):
    found = Dataset(dataclasses.replace(crowd, held_out=share)).count(PRIVATE, HELD_OUT)
    assert found == 1000 * share


def test_a_larger_held_out_part_contains_the_smaller(crowd):
    small, large = (
        set(
            read(
                Dataset(dataclasses.replace(crowd, held_out=share)).batches(PRIVATE, HELD_OUT, 64)
            )["identity"]
        )
        for share in (0.05, 0.2)
    )
    assert small < large


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    """60 names with three images each, of people that nobody knows."""
    people = [(-1, f"{name}.png") for name in range(60) for _ in range(3)]
    splits = dict.fromkeys(SPLITS, people)
    return prepare(tmp_path_factory.mktemp("strangers"), splits=splits)


def test_images_of_unknown_people_are_kept_together_by_name(strangers):
    parts = Dataset(dataclasses.replace(strangers, held_out=0.3))
    numbers = [read(parts.batches(PRIVATE, part, 64))["images"] for part in (TRAIN, HELD_OUT)]
    # Three images of a name follow one another; their number is what they show.
    names = [Counter(int(image[0, 0, 0]) // 3 for image in part) for part in numbers]
    assert all(set(part.values()) == {3} for part in names)
    assert min(map(len, names)) > 0
    assert sum(map(len, names)) == 60


# --- what tells images from others


def test_the_same_images_have_the_same_digest(tiny_faces):
    digests = {Dataset(tiny_faces).digest(PUBLIC, part) for part in (WHOLE, WHOLE)}
    assert len(digests) == 1
    assert len(digests.pop()) == 64


def test_other_images_have_another_digest(tiny_faces):
    digests = [Dataset(tiny_faces).digest(split, part) for split in SPLITS for part in PARTS]
    digests.append(Dataset(dataclasses.replace(tiny_faces, size=64)).digest(PUBLIC, WHOLE))
    assert len(set(digests)) == len(digests) == 10


def test_the_share_that_is_held_out_changes_the_digest_of_parts_alone(tiny_faces):
    few, many = (Dataset(dataclasses.replace(tiny_faces, held_out=h)) for h in (0.2, 0.4))
    assert few.digest(PUBLIC, WHOLE) == many.digest(PUBLIC, WHOLE)
    for part in (TRAIN, HELD_OUT):
        assert few.digest(PUBLIC, part) != many.digest(PUBLIC, part)


def test_a_changed_record_file_changes_the_digest_of_its_split_alone(tmp_path):
    dataset = Dataset(prepare(tmp_path, shards=2))
    before = {split: dataset.digest(split, WHOLE) for split in SPLITS}
    *_, last = sorted(tmp_path.glob("pictures/*/*public*"))
    content = last.read_bytes()
    last.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    after = {split: dataset.digest(split, WHOLE) for split in SPLITS}
    assert {split for split in SPLITS if before[split] != after[split]} == {PUBLIC}


def test_large_images_are_decoded_a_few_at_a_time(tiny_faces, monkeypatch):
    expected = read(Dataset(tiny_faces).batches(TEST, WHOLE, batch=16))
    order = first(Dataset(tiny_faces).training_batches(PUBLIC, WHOLE, 16, seed=3), 9)
    monkeypatch.setattr("tfadv.data.dataset._DECODED_BYTES", 1)
    counts, decode = [], pipeline.decode_images

    def spy(encoded, size):
        note = tf.numpy_function(lambda e: counts.append(len(e)), [encoded], [])
        with tf.control_dependencies([note]):
            return decode(tf.identity(encoded), size)

    monkeypatch.setattr(pipeline, "decode_images", spy)
    dataset = Dataset(tiny_faces)
    batches = dataset.batches(TEST, WHOLE, batch=16)
    found = read(batches)
    assert max(counts) == 1
    assert [len(batch["images"]) for batch in batches] == [16, 4]
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    training = dataset.training_batches(PUBLIC, WHOLE, 16, seed=3)
    assert training.element_spec["images"].shape == (16, tiny_faces.size, tiny_faces.size, 3)
    np.testing.assert_array_equal(first(training, 9), order)


# --- batches to train on


@pytest.mark.parametrize("buffer", [10_000, 16])
def test_each_epoch_has_every_image_once_in_an_order_of_its_own(tiny_faces, buffer):
    dataset = Dataset(dataclasses.replace(tiny_faces, shuffle_buffer=buffer))
    count, batch = dataset.count(PRIVATE, TRAIN), 8
    assert count % batch
    expected = Counter(keys(read(dataset.batches(PRIVATE, TRAIN, 16))["images"]))
    stream = dataset.training_batches(PRIVATE, TRAIN, batch, seed=0)
    seen = [key for batch in first(stream, 3 * count // batch) for key in batch]
    epochs = [seen[start : start + count] for start in (0, count, 2 * count)]
    assert Counter(epochs[0]) == Counter(epochs[1]) == expected
    assert Counter(epochs[2]) <= expected
    assert epochs[0] != epochs[1]
    assert epochs[1][: len(epochs[2])] != epochs[2]
    assert epochs[0] != list(expected)


def test_every_training_batch_is_full(dataset):
    stream = dataset.training_batches(PRIVATE, TRAIN, 16, seed=0)
    assert {len(batch) for batch in first(stream, 20)} == {16}


def global_seed(which):
    """Sets the seeds of the process in one of two ways."""
    if which == "keras":
        keras.utils.set_random_seed(1)
    else:
        tf.random.set_seed(7)


GLOBAL_SEEDS = ("keras", "tensorflow")
ARRAYS = {
    "images": np.arange(105 * 12).reshape(105, 2, 2, 3).astype(np.int32),
    "features": np.arange(105, dtype=np.float32)[:, None],
}


@pytest.fixture(scope="module", params=["records", "records, small buffer", "memory"])
def stream(request, tiny_faces):
    """A source of batches of 8 out of 105 images, from a seed and a batch to start at."""
    if request.param == "memory":
        return lambda seed, start=0: pipeline.in_memory_batches(ARRAYS, 8, seed=seed, start=start)
    tiny_faces = dataclasses.replace(tiny_faces, held_out=0.125)  # 3 of 24 people
    if "small" in request.param:
        tiny_faces = dataclasses.replace(tiny_faces, shuffle_buffer=16)
    source = Dataset(tiny_faces)
    assert source.count(PRIVATE, TRAIN) == 105
    return lambda seed, start=0: source.training_batches(PRIVATE, TRAIN, 8, seed=seed, start=start)


@pytest.fixture(scope="module")
def uninterrupted(stream):
    global_seed("keras")
    return first(stream(3), 50)


@pytest.mark.parametrize("seed", [0, 5])
def test_a_seed_gives_one_order_whatever_the_global_seed(stream, seed):
    orders = []
    for which in GLOBAL_SEEDS:
        global_seed(which)
        orders.append(first(stream(seed), 15))
    assert orders[0] == orders[1]


@pytest.mark.parametrize("which", GLOBAL_SEEDS)
def test_another_seed_gives_another_order(stream, which):
    global_seed(which)
    assert first(stream(0), 15) != first(stream(1), 15)


# 105 images in batches of 8: the first epoch ends within batch 13, the second within batch 26.
@pytest.mark.parametrize("start", [1, 13, 14, 26, 40])
def test_a_stream_goes_on_from_any_batch_as_if_never_stopped(stream, uninterrupted, start):
    global_seed("tensorflow")
    assert first(stream(3, start), 10) == uninterrupted[start : start + 10]


def test_several_shards_are_read_in_the_same_order_each_time(crowd):
    assert len(list(Path(crowd.dir).glob("pictures/*/*private*"))) == 4
    dataset = Dataset(crowd)
    orders = [first(dataset.training_batches(PRIVATE, TRAIN, 50, seed=0), 30) for _ in range(2)]
    assert orders[0] == orders[1]
    assert (
        first(dataset.training_batches(PRIVATE, TRAIN, 50, seed=0, start=20), 10) == orders[0][20:]
    )


def test_images_are_read_in_the_order_of_tfds(crowd):
    builder = tfds.builder_from_directory(Path(crowd.dir) / "pictures" / "1.0.0")
    expected = [e["identity"] for e in builder.as_dataset(split=PRIVATE).as_numpy_iterator()]
    assert expected != sorted(expected)
    found = read(Dataset(crowd).batches(PRIVATE, WHOLE, 64))
    np.testing.assert_array_equal(found["identity"], expected)
    np.testing.assert_array_equal(found["index"], np.arange(1000))


@pytest.mark.parametrize("part", [TRAIN, HELD_OUT])
def test_an_index_is_the_place_in_the_part(crowd, part):
    dataset = Dataset(crowd)
    found = read(dataset.batches(PRIVATE, part, 64))
    np.testing.assert_array_equal(found["index"], np.arange(dataset.count(PRIVATE, part)))
    trained = dataset.training_batches(PRIVATE, part, 10, seed=0).take(5).as_numpy_iterator()
    for batch in trained:
        np.testing.assert_array_equal(batch["identity"], found["identity"][batch["index"]])


def test_workers_share_the_in_memory_batches_of_one(monkeypatch):
    def batches():
        stream = pipeline.in_memory_batches(ARRAYS, 6, seed=0).take(5)
        return [batch["features"][:, 0] for batch in stream.as_numpy_iterator()]

    alone, shares = batches(), []
    monkeypatch.setattr(pipeline, "workers", lambda: 3)
    for worker in range(3):
        monkeypatch.setattr(pipeline, "worker", lambda worker=worker: worker)
        shares.append(batches())
    for whole, *parts in zip(alone, *shares, strict=True):
        assert [len(part) for part in parts] == [2] * 3
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_in_memory_batches_hold_every_row_once_an_epoch():
    stream = pipeline.in_memory_batches(ARRAYS, 15, seed=0).take(14).as_numpy_iterator()
    rows = np.concatenate([batch["features"][:, 0] for batch in stream])
    for epoch in (rows[:105], rows[105:]):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(105))
    assert (rows[:105] != rows[105:]).any()


def test_in_memory_batches_keep_the_rows_of_the_arrays_together():
    for batch in pipeline.in_memory_batches(ARRAYS, 8, seed=0).take(3).as_numpy_iterator():
        for name, rows in batch.items():
            assert rows.dtype == ARRAYS[name].dtype
        indices = batch["features"][:, 0].astype(int)
        np.testing.assert_array_equal(batch["images"], ARRAYS["images"][indices])


def test_in_memory_batches_have_a_static_shape():
    spec = pipeline.in_memory_batches(ARRAYS, 8, seed=0).element_spec
    assert spec["images"].shape == (8, 2, 2, 3)
    assert spec["features"].shape == (8, 1)


def test_more_images_in_a_batch_than_there_are_is_an_error(dataset):
    count = dataset.count(TEST, TRAIN)
    assert first(dataset.training_batches(TEST, TRAIN, count, seed=0), 1)
    with pytest.raises(
        UserError, match=rf"{TRAIN} part of split {TEST} has {count} .* train\.batch"
    ):
        dataset.training_batches(TEST, TRAIN, count + 1, seed=0)


def test_more_rows_in_a_batch_than_there_are_is_an_error():
    with pytest.raises(UserError, match=r"105 images.* batch of 106.* train\.batch"):
        pipeline.in_memory_batches(ARRAYS, 106, seed=0)


# --- what a dataset says of itself, and mistakes


def test_a_dataset_describes_itself(dataset):
    assert dataset.size == 32
    assert dataset.sizes == {PRIVATE: 120, PUBLIC: 60, TEST: 20}
    assert dataset.description["name"] == "synthetic/tiny/1.0.0"
    assert dataset.description["splits"] == dataset.sizes
    assert dataset.description["metadata"]["scheme"] == "identity"
    json.dumps(dataset.description)


def test_no_attribute_named_means_all_of_them(dataset):
    np.testing.assert_array_equal(dataset.columns(()), np.arange(len(dataset.attributes)))


def test_columns_are_in_the_order_of_the_names(dataset):
    names = dataset.attributes[5], dataset.attributes[2]
    np.testing.assert_array_equal(dataset.columns(names), [5, 2])


def test_an_attribute_that_the_dataset_lacks_is_named_with_those_it_has(dataset):
    with pytest.raises(UserError, match=r"names Smilling, .*synthetic/tiny lacks.*Eyeglasses"):
        dataset.columns(("Male", "Smilling"))


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    return Dataset(prepare(tmp_path_factory.mktemp("unlabelled"), attributes=()))


def test_a_dataset_without_attributes_has_empty_labels(unlabelled):
    assert unlabelled.attributes == ()
    assert read(unlabelled.batches(PRIVATE, WHOLE, 4))["labels"].shape == (8, 0)


@pytest.mark.parametrize(
    ("names", "message"), [((), "has no attributes to learn"), (("Male",), "it has none at all")]
)
def test_a_dataset_without_attributes_has_nothing_to_learn(unlabelled, names, message):
    with pytest.raises(UserError, match=message):
        unlabelled.columns(names)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        UserError, match=r"data\.dir=.*none, which has none; .*python -m data_prep\.celeba"
    ):
        Dataset(Data(dir=str(tmp_path / "none"), dataset="celeba/identity"))


def test_synthetic_faces_are_not_rendered_by_reading(tmp_path):
    with pytest.raises(UserError, match=r"no dataset synthetic/tiny .*data_prep\.synthetic"):
        Dataset(Data(dir=str(tmp_path), dataset="synthetic/tiny"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["celeba/identity", "synthetic/tiny"])
def test_a_file_is_no_data_folder(tmp_path, name):
    (tmp_path / "data").touch()
    with pytest.raises(UserError, match=r"data\.dir is .*data, a file"):
        Dataset(Data(dir=str(tmp_path / "data"), dataset=name))


@pytest.mark.parametrize(
    "name",
    ["celeba/identity", "celeba", "mnist", "synthetic/none", "synthetic/tiny:9.9.9", "x:y", "a b"],
)
def test_a_set_that_is_not_prepared_is_answered_with_those_that_are(tiny_faces, name):
    with pytest.raises(UserError) as caught:
        Dataset(dataclasses.replace(tiny_faces, dataset=name))
    message = str(caught.value)
    assert f"no dataset {name} in data.dir={tiny_faces.dir}, only synthetic/tiny" in message
    assert "python -m data_prep.celeba" in message


def test_an_empty_folder_has_nothing(tmp_path):
    with pytest.raises(UserError, match="which has none"):
        Dataset(Data(dir=str(tmp_path), dataset="celeba/identity"))


def test_a_synthetic_set_of_the_users_own_is_read(tmp_path, monkeypatch):
    from data_prep import synthetic

    flags = synthetic.define_flags()
    flags(["", f"--data_dir={tmp_path}", "--identities=6", "--pictures=1", "--size=32"])
    synthetic.main(flags)
    dataset = Dataset(Data(dir=str(tmp_path), dataset="synthetic/6x1_32px_seed0", size=32))
    assert sum(dataset.sizes.values()) == 6


@pytest.mark.parametrize("missing", SPLITS)
def test_a_missing_split_is_named(tmp_path, missing):
    people = [(0, "a.png")]
    splits = {split: people for split in SPLITS if split != missing}
    with pytest.raises(UserError, match=f"no images in split {missing}"):
        Dataset(prepare(tmp_path, splits=splits))


def test_an_empty_split_is_named(tmp_path):
    people = [(0, "a.png")]
    config = prepare(tmp_path, splits={PRIVATE: people, PUBLIC: people, TEST: people})
    info = tmp_path / "pictures" / "1.0.0" / "dataset_info.json"
    record = json.loads(info.read_text())
    for split in record["splits"]:
        if split["name"] == PUBLIC:
            split["shardLengths"] = ["0"]
    info.write_text(json.dumps(record))
    with pytest.raises(UserError, match="no images in split public"):
        Dataset(config)


def test_a_dataset_without_labels_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no feature attributes"):
        Dataset(prepare(tmp_path, without=("attributes",)))


@pytest.mark.parametrize("missing", [("identity",), ("name",), ("identity", "name")])
def test_identities_and_names_may_be_unknown(tmp_path, missing):
    dataset = Dataset(prepare(tmp_path, without=missing))
    is_known = "identity" not in missing
    identities = dataset.annotations(PRIVATE)[0]
    np.testing.assert_array_equal(np.sort(identities), np.arange(8) if is_known else [-1] * 8)
    assert (dataset.count(PRIVATE, TRAIN), dataset.count(PRIVATE, HELD_OUT)) == (7, 1)


def test_a_dataset_of_another_file_format_is_refused(tmp_path):
    config = prepare(tmp_path)
    (path,) = Path(config.dir).rglob("dataset_info.json")
    path.write_text(path.read_text().replace('"tfrecord"', '"array_record"'))
    with pytest.raises(UserError, match="is stored as array_record; make it as tfrecord"):
        Dataset(config)


def test_one_person_alone_can_not_be_held_out(tmp_path):
    people = [(0, "a.png"), (0, "b.png")]
    dataset = Dataset(prepare(tmp_path, splits=dict.fromkeys(SPLITS, people)))
    with pytest.raises(UserError, match=r"split private of dataset .* shows one person only"):
        dataset.count(PRIVATE, TRAIN)


@pytest.mark.parametrize("people", [2, 5, 12])
def test_of_few_people_one_at_least_is_held_out_and_one_at_least_trained_on(tmp_path, people):
    images = [(who, f"{who}_{i}.png") for who in range(people) for i in range(2)]
    config = prepare(tmp_path, splits=dict.fromkeys(SPLITS, images))
    dataset = Dataset(dataclasses.replace(config, held_out=0.1))
    assert dataset.count(PRIVATE, HELD_OUT) == 2
    assert dataset.count(PRIVATE, TRAIN) == 2 * (people - 1)


def test_larger_images_are_evaluated_fewer_at_a_time(tiny_faces):
    sizes = {32: 1024, 64: 256, 224: 20}
    for size, batch in sizes.items():
        assert Dataset(dataclasses.replace(tiny_faces, size=size)).evaluation_batch == batch
