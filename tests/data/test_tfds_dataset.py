"""Datasets that TFDS itself has: other splits, other features, nobody known by name."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.datasets import Images, plain_image, prepare, read
from tfadv import cli
from tfadv.config import config_file
from tfadv.config.errors import UserError
from tfadv.config.schema import Data
from tfadv.data import dataset as data
from tfadv.data.dataset import HELD_OUT, PRIVATE, PUBLIC, TEST, TRAIN, WHOLE, Dataset
from tfadv.data.labels import UNKNOWN
from tfadv.data.records import Records

SIZES = {"train": 40, "validation": 6, "test": 10}
SLICES = {"private": "train[:80%]", "public": "train[80%:]", "test": "test"}
NAMES = ("Bald", "Male", "Young")


class Faces(Images, skip_registration=True):
    """A set of the structure of TFDS's own celeb_a; bit j of an image's number is attribute j."""

    sizes, blue, side = SIZES, 3, 2
    features = {  # noqa: RUF012
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
        "landmarks": {"lefteye_x": np.int64},
        "attributes": dict.fromkeys(reversed(NAMES), np.bool_),
    }

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(self.features)
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(range(n)) for split, n in self.sizes.items()}

    def _generate_examples(self, numbers):
        for number in numbers:
            yield number, self.example(number)

    def example(self, number):
        """Returns what a record of an image holds."""
        bits = {name: bool(number >> bit & 1) for bit, name in enumerate(NAMES)}
        image = plain_image(number, self.blue)
        return {"image": image, "landmarks": {"lefteye_x": number}, "attributes": bits}


def faces(folder, name="celeb", **variables):
    """Writes such a set; returns its settings."""
    return dataclasses.replace(prepare(folder, name, base=Faces, splits={}, **variables), **SLICES)


def of(image="image", **features):
    """A set of other features, by what gives each from an image's number."""
    return {
        "features": {image: Faces.features["image"]} | {n: f for n, (f, _) in features.items()},
        "example": lambda self, number: (
            {image: plain_image(number, self.blue)}
            | {name: value(number) for name, (_, value) in features.items()}
        ),
    }


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return faces(tmp_path_factory.mktemp("celeb"), shards=3)


@pytest.fixture(scope="module")
def dataset(settings):
    return Dataset(settings)


def numbers(batches):
    """The numbers of pictures, by what they show."""
    return read(batches)["images"][:, 0, 0, 0].astype(int)


def test_the_slices_are_disjoint_and_complete(dataset):
    private, public, test = (numbers(dataset.batches(s, WHOLE, 7)) for s in (PRIVATE, PUBLIC, TEST))
    assert dataset.sizes == {PRIVATE: 32, PUBLIC: 8, TEST: 10}
    assert [len(each) for each in (private, public, test)] == [32, 8, 10]
    np.testing.assert_array_equal(np.sort(np.concatenate([private, public])), np.arange(40))
    np.testing.assert_array_equal(np.sort(test), np.arange(10))


@pytest.mark.parametrize("split", [PRIVATE, PUBLIC, TEST])
def test_images_are_those_that_tfds_reads_in_its_order(settings, dataset, split):
    builder = tfds.builder_from_directory(f"{settings.dir}/celeb/1.0.0")
    read_by_tfds = builder.as_dataset(split=SLICES[split]).as_numpy_iterator()
    expected = [example["image"][0, 0] for example in read_by_tfds]
    found = read(dataset.batches(split, WHOLE, 7))
    np.testing.assert_array_equal(found["images"][:, 5, 5], expected)
    np.testing.assert_array_equal(found["index"], np.arange(len(expected)))


def test_people_named_by_texts_stay_together_where_some_are_held_out(tmp_path):
    text = tfds.features.Text()
    who = of(
        attributes=(tfds.features.ClassLabel(num_classes=2), lambda i: i % 2),
        identity=(text, lambda i: f"person {i // 5}" if i else ""),
    )
    dataset = Dataset(dataclasses.replace(faces(tmp_path, **who), held_out=0.3))
    train, held_out = (dataset.annotations(PRIVATE, part)[0] for part in (TRAIN, HELD_OUT))
    assert len({*train.tolist(), *held_out.tolist()} - {-1}) == 8
    assert not {*train.tolist()} & {*held_out.tolist()} - {-1}
    found = read(dataset.batches(PRIVATE, WHOLE, 7))
    number = found["images"][:, 0, 0, 0]
    by_person = {who: {*number[found["identity"] == who] // 5} for who in {*found["identity"]}}
    assert all(len(group) == 1 for who, group in by_person.items() if who >= 0)
    assert number[found["identity"] < 0].tolist() in ([0], [])


def test_images_without_a_name_are_of_one_person_each(tmp_path):
    who = of(
        attributes=(tfds.features.ClassLabel(num_classes=2), lambda i: i % 2),
        name=(tfds.features.Text(), lambda i: ""),
    )
    dataset = Dataset(dataclasses.replace(faces(tmp_path, **who), held_out=0.25))
    assert dataset.count(PRIVATE, HELD_OUT) == 8


def test_columns_without_names_are_not_taken_for_those_of_another_dataset(tmp_path):
    vector = of(
        attributes=(tfds.features.Tensor(shape=(2,), dtype=np.uint8), lambda i: [i % 2, 1]),
    )
    own = faces(tmp_path, **vector)
    faces(tmp_path, "other", blue=4, **vector)
    dataset = Dataset(dataclasses.replace(own, extra=("other",)))
    assert dataset.attributes == ("attributes_0", "attributes_1")
    _, labels = dataset.annotations(PUBLIC)
    assert (labels[dataset.sizes[PUBLIC] - dataset.extra["other/1.0.0"] :] == UNKNOWN).all()


def test_a_dict_of_booleans_gives_labels_in_the_order_of_their_names(dataset):
    assert dataset.attributes == NAMES
    found = read(dataset.batches(PRIVATE, WHOLE, 7))
    number = found["images"][:, 0, 0, 0]
    expected = [[number >> bit & 1 for bit in range(3)] for number in number]
    np.testing.assert_array_equal(found["labels"], expected)
    np.testing.assert_array_equal(dataset.annotations(PRIVATE)[1], expected)
    assert found["labels"].dtype == np.uint8


def test_where_identities_are_unknown_every_image_is_of_another_person(dataset):
    np.testing.assert_array_equal(dataset.annotations(PRIVATE)[0], -1)
    parts = [numbers(dataset.batches(PRIVATE, part, 7)) for part in (TRAIN, HELD_OUT)]
    whole = numbers(dataset.batches(PRIVATE, WHOLE, 7))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.sort(whole))
    assert len(parts[1]) == round(0.1 * 32)
    assert not dataset.shares_no_identity


def test_training_reads_every_image_of_a_slice_once_an_epoch(dataset):
    found = numbers(dataset.training_batches(PUBLIC, WHOLE, 4, seed=0).take(2))
    np.testing.assert_array_equal(np.sort(found), np.sort(numbers(dataset.batches(PUBLIC, WHOLE))))


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_workers_read_records_of_their_own_and_all_of_them_together(settings, workers):
    split = Records(settings, "celeb").split("train[:90%]", "private")
    assert len(split.files) == 3  # a file for each of three workers, else they take turns

    def images(split):
        batches = split.parsed(split.indices()).as_numpy_iterator()
        return [image for batch in batches for image in batch["image"]]

    whole = images(split)
    shares = [split.share(worker, workers) for worker in range(workers)]
    assert [len(own.files) for own, _ in shares] == {1: [3], 3: [1] * 3}.get(workers, [3] * workers)
    for own, positions in shares:
        assert images(own) == [whole[position] for position in positions]
    np.testing.assert_array_equal(
        np.sort(np.concatenate([positions for _, positions in shares])), np.arange(len(whole))
    )


@pytest.mark.parametrize("workers", [2, 4])
def test_the_batches_of_workers_share_nothing_and_number_images_alike(
    settings, workers, monkeypatch
):
    whole = numbers(Dataset(settings).batches(PRIVATE, WHOLE, 7))
    seen = []
    monkeypatch.setattr(data, "workers", lambda: workers)
    for worker in range(workers):
        monkeypatch.setattr(data, "worker", lambda worker=worker: worker)
        batches = Dataset(settings).training_batches(PRIVATE, WHOLE, 4 * workers, seed=0)
        found = read(batches.take(8))
        assert len(found["images"]) == 32
        np.testing.assert_array_equal(whole[found["index"]], found["images"][:, 0, 0, 0])
        seen.append({*found["index"].tolist()})
    assert len(set.union(*seen)) == sum(map(len, seen)) == 32


def test_another_slice_has_another_digest(settings, dataset):
    other = dataclasses.replace(settings, private="train[:70%]")
    assert Dataset(other).digest(PRIVATE, WHOLE) != dataset.digest(PRIVATE, WHOLE)
    assert Dataset(other).digest(PUBLIC, WHOLE) == dataset.digest(PUBLIC, WHOLE)


def test_people_in_a_dict_of_one_number_are_known(tmp_path):
    # As in celeb_a 2.1.0.
    people = {"Identity_No": np.int64}
    config = faces(
        tmp_path,
        **of(
            attributes=({"Male": np.bool_}, lambda i: {"Male": i % 2 == 1}),
            identity=(people, lambda i: {"Identity_No": i // 2}),
        ),
    )
    found = read(Dataset(config).batches(PUBLIC, WHOLE))
    np.testing.assert_array_equal(found["identity"], found["images"][:, 0, 0, 0] // 2)


LABELS = {
    "two classes": (tfds.features.ClassLabel(num_classes=2), lambda i: i % 2, ("label",)),
    "a boolean": (tfds.features.Scalar(np.bool_), lambda i: i % 2 == 1, ("label",)),
    "a number": (tfds.features.Scalar(np.int32), lambda i: i % 2, ("label",)),
    "a vector": (
        tfds.features.Tensor(shape=(2,), dtype=np.int64),
        lambda i: [i % 2, 1 - i % 2],
        ("label_0", "label_1"),
    ),
}


@pytest.mark.parametrize(("feature", "value", "names"), LABELS.values(), ids=LABELS)
def test_labels_may_be_in_another_feature(tmp_path, feature, value, names):
    config = faces(tmp_path, **of("photo", label=(feature, value)))
    dataset = Dataset(dataclasses.replace(config, labels="label"))
    assert dataset.attributes == names
    found = read(dataset.batches(PUBLIC, WHOLE))
    expected = [np.ravel(value(int(number))) for number in found["images"][:, 0, 0, 0]]
    np.testing.assert_array_equal(found["labels"], expected)


OTHER_LABELS = {
    "three classes": (tfds.features.ClassLabel(num_classes=3), lambda i: i % 3),
    "fractions": (tfds.features.Scalar(np.float32), lambda i: 0.5),
    "a text": (tfds.features.Text(), str),
    "any number of them": (tfds.features.Sequence(np.int64), lambda i: [1] * (i % 3)),
    "a dict of numbers": ({"x": np.float32}, lambda i: {"x": 0.5}),
}


@pytest.mark.parametrize(("feature", "value"), OTHER_LABELS.values(), ids=OTHER_LABELS)
def test_labels_that_can_not_be_0_or_1_are_refused(tmp_path, feature, value):
    config = dataclasses.replace(faces(tmp_path, **of(label=(feature, value))), labels="label")
    with pytest.raises(UserError, match=r"dataset celeb in .* in label.*must name 0/1 labels"):
        Dataset(config)


@pytest.mark.parametrize(
    "value",
    [lambda i: i % 3, lambda i: i % 2 * 2 - 1, lambda i: -1 if i == 99 else i % 2],
    ids=["three", "signs", "one unknown"],
)
def test_labels_that_are_other_numbers_are_refused(tmp_path, value):
    sizes = {"train": 1000, "test": 10}
    config = faces(tmp_path, sizes=sizes, **of(label=(tfds.features.Scalar(np.int64), value)))
    with pytest.raises(UserError, match="has labels other than 0 and 1 in split train"):
        Dataset(dataclasses.replace(config, private="train", public="test", labels="label"))


def test_a_feature_of_labels_that_is_not_there_is_named_with_those_that_are(settings):
    with pytest.raises(UserError, match=r"no feature label; .*data\.labels.*attributes, image, la"):
        Dataset(dataclasses.replace(settings, labels="label"))


def test_a_dataset_without_images_is_refused(tmp_path):
    config = faces(
        tmp_path,
        features={"label": tfds.features.ClassLabel(num_classes=2)},
        example=lambda self, number: {"label": number % 2},
    )
    with pytest.raises(UserError, match="has no image feature; it has label"):
        Dataset(dataclasses.replace(config, labels="label"))


def test_floating_point_images_are_refused(tmp_path):
    config = faces(
        tmp_path,
        features=Faces.features | {"image": tfds.features.Image(shape=(2, 2, 1), dtype=np.float32)},
        example=lambda self, number: (
            Faces.example(self, number) | {"image": np.full((2, 2, 1), 0.5, np.float32)}
        ),
    )
    with pytest.raises(UserError, match="has floating-point images in image; they must be uint8"):
        Dataset(config)


def test_of_several_images_one_must_be_called_image(tmp_path):
    pair = of("left", right=(Faces.features["image"], lambda i: plain_image(i, 9)))
    with pytest.raises(UserError, match="several image features, none called image: left, right"):
        Dataset(faces(tmp_path, "pairs", **pair))
    named = of("image", right=(Faces.features["image"], lambda i: plain_image(i, 9)))
    config = dataclasses.replace(faces(tmp_path, "named", **named), labels="right")
    with pytest.raises(UserError, match=r"in right; data\.labels must name"):
        Dataset(config)


@pytest.mark.parametrize("field", ["private", "public", "test"])
@pytest.mark.parametrize(
    "split", ["trian", "train[:", "train[90:100]", "train[:0%]", "test[x]", "train[5:3]", "all[:9]"]
)
def test_a_split_that_does_not_exist_is_answered_with_those_that_do(settings, field, split):
    with pytest.raises(UserError) as caught:
        Dataset(dataclasses.replace(settings, **{field: split}))
    message = str(caught.value)
    assert f"no images in split {split}; set data.{field} to one" in message
    for name in SIZES:
        assert name in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("private", "public", "test", "fields"),
    [
        ("train[:80%]", "train[70%:]", "test", ("private", "public")),
        ("train", "validation", "train[39:]", ("private", "test")),
        ("train", "test+validation", "test", ("public", "test")),
        ("train", "validation", "all", ("private", "test")),
    ],
)
def test_splits_that_share_images_are_refused(settings, private, public, test, fields):
    config = dataclasses.replace(settings, private=private, public=public, test=test)
    with pytest.raises(UserError, match=rf"data\.{fields[0]}, .*, and data\.{fields[1]}, .*share"):
        Dataset(config)


@pytest.mark.parametrize("split", ["test+test", "train[:9]+test+train[8:]"])
def test_a_split_that_has_images_twice_is_refused(settings, split):
    config = dataclasses.replace(settings, private="validation", public="validation", test=split)
    with pytest.raises(UserError) as caught:
        Dataset(config)
    assert f"data.test, {split}, has images of dataset celeb" in str(caught.value)
    assert str(caught.value).endswith("twice")


def test_such_a_dataset_is_listed_where_another_is_missing(settings):
    with pytest.raises(UserError, match=r"no dataset celeb_b in .*, only celeb; .*tfds build"):
        Dataset(dataclasses.replace(settings, dataset="celeb_b"))


def test_a_dataset_of_another_structure_joins_the_public_images(tmp_path):
    people = [(-1, f"{number}.png") for number in range(8)]
    own = prepare(tmp_path, splits=dict.fromkeys((PRIVATE, PUBLIC, TEST), people))
    faces(tmp_path)
    dataset = Dataset(dataclasses.replace(own, extra=("celeb",)))
    found = read(dataset.batches(PUBLIC, WHOLE, 16))
    assert dataset.sizes[PUBLIC] == 8 + sum(SIZES.values())
    number = found["images"][8:, 0, 0, 0].astype(int)
    np.testing.assert_array_equal(found["labels"][8:, 1], number >> 1 & 1)  # Male


def test_labels_that_join_must_be_0_or_1_too_where_they_are_of_the_same_attribute(tmp_path):
    own = prepare(tmp_path)
    for name, attribute in (("signs", "Male"), ("others", "Height")):
        feature = ({attribute: np.int64}, lambda i, a=attribute: {a: i % 2 * 2 - 1})
        faces(tmp_path, name, **of(attributes=feature))
    with pytest.raises(UserError, match=r"dataset signs in .* has labels other than 0 and 1"):
        Dataset(dataclasses.replace(own, extra=("signs",)))
    found = read(Dataset(dataclasses.replace(own, extra=("others",))).batches(PUBLIC, WHOLE))
    np.testing.assert_array_equal(found["labels"][8:], UNKNOWN)


CONFIG = """
from tfadv.config.schema import *

def get_config(mode):
    return Config(
        data=Data(
            dir={dir!r}, dataset="celeb", size=32, held_out=0.3,
            private="train[:60%]", public="train[60%:]", test="validation+test",
        ),
        task=Task(attributes=("Male",)),
        model=Model(depth=18, width=0.125, decoder_width=0.125),
        train=Train(steps=10, batch=8, log_every=5, evaluate_every=5, checkpoint_every=10),
        attack=Attack(patience=1, rate_drops=0),
        metrics=Metrics(replicates=50),
        runtime=Runtime(precision="float32"),
        report=Report(examples=3),
    )
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished protect run and a finished attack on it, where nobody is known."""
    folder = tmp_path_factory.mktemp("runs")
    faces(folder, sizes={"train": 120, "validation": 10, "test": 30})
    (folder / "celeb.py").write_text(CONFIG.format(dir=str(folder)))
    for mode in ("protect", "attack"):
        keras.config.set_dtype_policy("float32")
        flags = [f"--mode={mode}", f"--config={folder / 'celeb.py'}", f"--workdir={folder / mode}"]
        assert cli.main(["run.py", *flags]) == 0
    return folder


def test_protect_and_attack_run_on_a_dataset_of_tfds(runs):
    protect, attack = (
        json.loads((runs / mode / "metrics.json").read_text()) for mode in ("protect", "attack")
    )
    assert protect["test_examples"] == attack["test_examples"] == 40
    assert {"mcc", "mcc_task", "mcc/Male"} <= set(protect)
    assert {"psnr", "ridge/psnr", "mean_face/psnr", "probe_mlp/attribute_mcc/Young"} <= set(attack)
    record = json.loads((runs / "attack/config.json").read_text())
    assert record["dataset"]["splits"] == {"private": 72, "public": 48, "test": 40}


def test_what_needs_identities_is_left_out_and_said_not_to_be_measured(runs):
    found = json.loads((runs / "attack/metrics.json").read_text())
    assert not [name for name in found if "reid" in name or "verif" in name or "linkage" in name]
    page = (runs / "attack/report.html").read_text()
    assert "re-identification, verification and linkage are not measured" in page
    assert "Linkage" not in page


def test_the_recognizer_says_that_identities_are_unknown(runs, capsys):
    flags = ["--mode=recognizer", f"--config={runs / 'celeb.py'}", f"--workdir={runs / 'c'}"]
    assert cli.main(["run.py", *flags]) == 2
    assert "shows no known person" in capsys.readouterr().err


def test_the_config_for_celeb_a_of_tfds_names_its_splits():
    for mode in ("protect", "attack", "recognizer"):
        data = config_file.read_config("configs/tfds_celeb_a.py", mode).data
        assert isinstance(data, Data)
        assert (data.private, data.public, data.test) == tuple(SLICES.values())
