"""Further datasets, whose images join the public ones."""

import dataclasses
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.datasets import first, keys, prepare, read
from tfadv.config.errors import UserError
from tfadv.config.schema import Data
from tfadv.data import overlap
from tfadv.data.dataset import HELD_OUT, PRIVATE, PUBLIC, TEST, TRAIN, WHOLE, Dataset
from tfadv.data.labels import UNKNOWN

OWN, LABELLED, BARE = 100, 30, 12  # public images of each dataset


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A dataset of 50 people, one with an attribute in common, one without any or any name."""
    folder = tmp_path_factory.mktemp("extra")
    people = [(number // 2, f"{number}.png") for number in range(OWN)]
    own = prepare(folder, splits={PRIVATE: people[:20], PUBLIC: people, TEST: people[:10]})
    attributes = ("Bald", "Male", "Young")
    splits = {"train": people[:20], "test": people[:10]}
    prepare(folder, "labelled", shards=2, splits=splits, attributes=attributes, blue=1)
    nobody = [(-1, f"{number}.png") for number in range(BARE)]
    prepare(folder, "bare", splits={"train": nobody}, attributes=(), blue=2)
    return dataclasses.replace(own, extra=("labelled", "bare"), held_out=0.2)


@pytest.fixture(scope="module")
def dataset(settings):
    return Dataset(settings)


@pytest.fixture(scope="module")
def alone(settings):
    return Dataset(dataclasses.replace(settings, extra=()))


def which(images):
    """Which dataset images are of: 0, 1 or 2."""
    return np.array([{7: 0, 1: 1, 2: 2}[int(image[0, 0, 2])] for image in images])


@pytest.mark.parametrize(("part", "own"), [(WHOLE, 100), (TRAIN, 80)])
def test_all_their_images_follow_the_public_ones(dataset, alone, part, own):
    found, before = (read(each.batches(PUBLIC, part, 16)) for each in (dataset, alone))
    for name in ("images", "labels", "identity", "index"):
        np.testing.assert_array_equal(found[name][:own], before[name])
    np.testing.assert_array_equal(which(found["images"]), [0] * own + [1] * LABELLED + [2] * BARE)
    numbers = [Counter(found["images"][which(found["images"]) == i, 0, 0, 0]) for i in (1, 2)]
    assert numbers == [Counter([*range(20), *range(10)]), Counter(range(BARE))]
    np.testing.assert_array_equal(found["index"], np.arange(own + LABELLED + BARE))
    assert dataset.count(PUBLIC, part) == own + LABELLED + BARE


@pytest.mark.parametrize(
    ("split", "part"),
    [(PUBLIC, HELD_OUT), *((s, p) for s in (PRIVATE, TEST) for p in (WHOLE, TRAIN, HELD_OUT))],
)
def test_nothing_else_changes(dataset, alone, split, part):
    found, before = (read(each.batches(split, part, 16)) for each in (dataset, alone))
    for name in before:
        np.testing.assert_array_equal(found[name], before[name])
    assert dataset.count(split, part) == alone.count(split, part) == len(before["index"])
    assert dataset.digest(split, part) == alone.digest(split, part)


def test_labels_are_those_of_the_same_name_and_else_unknown(dataset):
    found = read(dataset.batches(PUBLIC, WHOLE, 16))
    assert found["labels"].dtype == np.uint8
    assert dataset.attributes == ("Smiling", "Male")
    source, number = which(found["images"]), found["images"][:, 0, 0, 0]
    np.testing.assert_array_equal(found["labels"][source > 0, 0], UNKNOWN)
    np.testing.assert_array_equal(found["labels"][source == 1, 1], number[source == 1] >> 1 & 1)
    np.testing.assert_array_equal(found["labels"][source == 2], UNKNOWN)


def test_their_people_are_numbered_apart_and_the_unknown_stay_unknown(dataset):
    found = read(dataset.batches(PUBLIC, WHOLE, 16))
    source, number = which(found["images"]), found["images"][:, 0, 0, 0].astype(np.int64)
    people = found["identity"]
    of_extra = dict(zip(number[source == 1] // 2, people[source == 1], strict=True))
    np.testing.assert_array_equal(
        people[source == 1], [of_extra[who] for who in number[source == 1] // 2]
    )
    assert len({*of_extra.values()}) == len(of_extra) > 1
    np.testing.assert_array_equal(people[source == 2], -1)
    assert not {*of_extra.values()} & {*people[source == 0]}


def test_the_people_of_two_further_datasets_are_numbered_apart_too(tmp_path):
    own = prepare(tmp_path)
    for blue, name in enumerate(("first", "second")):
        prepare(tmp_path, name, blue=blue, splits={"train": [(7, f"{i}.png") for i in range(3)]})
    people, _ = Dataset(dataclasses.replace(own, extra=("first", "second"))).annotations(PUBLIC)
    own, first, second = ({*people[rows].tolist()} for rows in np.split(np.arange(14), (8, 11)))
    assert len(first) == len(second) == 1
    assert not first & second
    assert not (first | second) & own


@pytest.mark.parametrize("part", [WHOLE, TRAIN, HELD_OUT])
def test_annotations_are_those_of_the_batches(dataset, part):
    found = read(dataset.batches(PUBLIC, part, 16))
    identities, labels = dataset.annotations(PUBLIC, part)
    np.testing.assert_array_equal(identities, found["identity"])
    np.testing.assert_array_equal(labels, found["labels"])


def stream(settings, part, start=0, seed=3):
    source = Dataset(dataclasses.replace(settings, shuffle_buffer=16))
    return source.training_batches(PUBLIC, part, 8, seed=seed, start=start)


@pytest.mark.parametrize("part", [WHOLE, TRAIN])
def test_every_epoch_has_every_image_once(settings, dataset, part):
    count = dataset.count(PUBLIC, part)
    batches = list(stream(settings, part).take(2 * count // 8 + 1).as_numpy_iterator())
    index = np.concatenate([batch["index"] for batch in batches])
    for epoch in (index[:count], index[count : 2 * count]):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(count))
    assert (index[:count] != index[count : 2 * count]).any()
    whole = read(dataset.batches(PUBLIC, part, 16))
    for name in whole:
        found = np.concatenate([batch[name] for batch in batches])
        np.testing.assert_array_equal(found, whole[name][index])


def test_they_are_spread_over_an_epoch_though_few_are_shuffled_at_a_time(settings):
    count = OWN + LABELLED + BARE
    images = read(stream(settings, WHOLE).take(count // 8))["images"]
    for source, share in ((1, LABELLED / count), (2, BARE / count)):
        places = np.flatnonzero(which(images) == source) / len(images)
        expected = (np.arange(len(places)) + 0.5) / len(places)
        # A buffer of 16 moves an image by some 16 places, further now and then.
        assert np.abs(places - expected).max() < 0.3
        assert len(places) == pytest.approx(share * len(images), abs=4)


# 142 images in batches of 8: the first epoch ends within batch 17, the second within batch 35.
@pytest.mark.parametrize("start", [1, 17, 18, 36])
def test_a_stream_goes_on_from_any_batch_as_if_never_stopped(settings, start):
    expected = first(stream(settings, WHOLE), 45)
    assert first(stream(settings, WHOLE, start), 9) == expected[start : start + 9]
    assert first(stream(settings, WHOLE, seed=4), 9) != expected[:9]


def test_large_images_are_decoded_a_few_at_a_time_all_the_same(settings, dataset, monkeypatch):
    expected = read(dataset.batches(PUBLIC, WHOLE, batch=16))
    monkeypatch.setattr("tfadv.data.dataset._DECODED_BYTES", 1)
    found = read(Dataset(settings).batches(PUBLIC, WHOLE, batch=16))
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def test_the_digest_tells_which_they_are_and_what_is_in_them(tmp_path):
    own = prepare(tmp_path)
    for name in ("first", "second"):
        prepare(tmp_path, name, blue=1)

    def digests(*extra):
        dataset = Dataset(dataclasses.replace(own, extra=extra))
        return tuple(dataset.digest(PUBLIC, part) for part in (WHOLE, TRAIN, HELD_OUT))

    found = [digests(), digests("first"), digests("first", "second"), digests("second", "first")]
    shutil.rmtree(tmp_path / "first")
    prepare(tmp_path, "first", blue=2)
    found.append(digests("first"))
    whole, train, held_out = zip(*found, strict=True)
    assert len({*whole, *train}) == 10
    assert len({*held_out}) == 1


def test_a_dataset_says_which_joined_and_how_many_images(dataset):
    extra = {"labelled/1.0.0": LABELLED, "bare/1.0.0": BARE}
    assert dataset.extra == dataset.description["extra"] == extra
    assert dataset.sizes == {PRIVATE: 20, PUBLIC: OWN + LABELLED + BARE, TEST: 10}
    assert dataset.description["splits"] == dataset.sizes


def test_one_that_is_not_prepared_is_named_with_those_that_are(settings):
    config = dataclasses.replace(settings, extra=("labelled", "lfw"))
    with pytest.raises(UserError, match=r"no dataset lfw in data\.dir=.*only bare, labelled, pict"):
        Dataset(config)


def test_one_made_from_the_same_source_is_refused(tiny_faces, tmp_path):
    (tmp_path / "synthetic").mkdir()
    (tmp_path / "synthetic/tiny").symlink_to(Path(tiny_faces.dir) / "synthetic/tiny")
    (tmp_path / "synthetic/copy").symlink_to(Path(tiny_faces.dir) / "synthetic/tiny")
    data = Data(dir=str(tmp_path), dataset="synthetic/tiny", extra=("synthetic/copy",), size=32)
    with pytest.raises(UserError, match=r"data\.extra names synthetic/copy, .*the same source"):
        Dataset(data)


def test_one_that_has_test_images_is_refused_whatever_its_labels(tmp_path):
    people = [(number, f"{number}.png") for number in range(8)]
    own = prepare(tmp_path, splits={PRIVATE: people, PUBLIC: people, TEST: people[:3]})
    others = {"train": [(-1, f"other/{number}.png") for number in range(2, 9)]}
    for name, blue in (("copy", 7), ("others", 1)):
        prepare(tmp_path, name, splits=others, attributes=(), blue=blue)
    with pytest.raises(UserError, match=r"names copy, which has 3 of the 3 images in split test"):
        Dataset(dataclasses.replace(own, extra=("others", "copy")))
    assert Dataset(dataclasses.replace(own, extra=("others",))).count(PUBLIC) == 15


def test_an_extra_dataset_without_images_is_refused(tmp_path):
    config = prepare(tmp_path)
    prepare(tmp_path, "other", splits={})
    with pytest.raises(UserError, match=r"dataset other in .* has no images"):
        Dataset(dataclasses.replace(config, extra=("other",)))


def test_an_image_of_another_dataset_is_the_same_as_it_is_there(settings, dataset):
    there = read(
        Dataset(dataclasses.replace(settings, extra=("labelled",))).batches(PUBLIC, WHOLE, 16)
    )
    here = read(dataset.batches(PUBLIC, WHOLE, 16))
    assert keys(here["images"])[: OWN + LABELLED] == keys(there["images"])


@pytest.mark.parametrize("name", ["celeb_a", "celeb_a_hq/256"])
def test_celeba_is_one_source_under_all_of_its_names(name):
    def made(name):
        info = SimpleNamespace(name=name.split("/")[0])
        return SimpleNamespace(name=name, info=info, metadata={})

    with pytest.raises(UserError, match="the same source"):
        overlap.check_source(made("celeba/paper"), made(name))
    overlap.check_source(made(name), made("ms_celeb_1m/n10000_seed0"))
