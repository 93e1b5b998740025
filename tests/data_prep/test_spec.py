import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_prep import spec
from tfadv.config.errors import UserError

SHARES = (0.7, 0.2, 0.1)

identities_of_images = hnp.arrays(np.int64, st.integers(1, 200), elements=st.integers(-1, 30))
share_triples = st.tuples(*[st.integers(1, 50)] * 3).map(lambda w: tuple(x / sum(w) for x in w))


def source(identities, partition=None):
    count = len(identities)
    return spec.Source(
        root=None,
        names=[f"{i}.jpg" for i in range(count)],
        attributes=np.zeros((count, 0), np.uint8),
        identities=np.asarray(identities, np.int64),
        partition=partition,
    )


def test_paper_shares_give_the_papers_counts_on_all_of_celeba():
    splits = spec.split_by_position(202_599, spec.PAPER_SHARES)
    assert {split: len(positions) for split, positions in splits.items()} == {
        "private": 160_000,
        "public": 40_000,
        "test": 2_599,
    }
    assert splits["private"][0] == 0
    assert splits["public"][0] == 160_000
    assert splits["test"][-1] == 202_598


def test_paper_scheme_keeps_the_shares_on_a_smaller_set():
    splits = spec.split_by_position(20_200, spec.PAPER_SHARES)
    # 20,200 * 160,000 / 202,599 = 15,952.7; 20,200 * 40,000 / 202,599 = 3,988.2
    assert [len(positions) for positions in splits.values()] == [15_953, 3_988, 259]


@given(identities_of_images, share_triples, st.integers(0, 5))
def test_identity_scheme_deals_every_image_once(identities, shares, seed):
    splits = spec.split_by_identity(identities, shares, seed)
    assert sorted(np.concatenate(list(splits.values()))) == list(range(len(identities)))


@given(identities_of_images, share_triples, st.integers(0, 5))
def test_identity_scheme_puts_no_identity_in_two_splits(identities, shares, seed):
    splits = spec.split_by_identity(identities, shares, seed)
    known = [set(identities[positions]) - {-1} for positions in splits.values()]
    assert sum(map(len, known)) == len(set.union(*known))


@given(identities_of_images, share_triples, st.integers(0, 5))
def test_identity_scheme_is_within_one_identity_of_the_shares(identities, shares, seed):
    splits = spec.split_by_identity(identities, shares, seed)
    _, sizes = np.unique(identities[identities >= 0], return_counts=True)
    largest = max(sizes, default=1)
    for share, positions in zip(shares, splits.values(), strict=True):
        assert abs(len(positions) - share * len(identities)) < largest + 1  # 1: cuts are rounded


@given(identities_of_images, share_triples, st.integers(0, 5))
def test_identity_scheme_is_deterministic(identities, shares, seed):
    first = spec.split_by_identity(identities, shares, seed)
    second = spec.split_by_identity(identities.copy(), shares, seed)
    for split in spec.SPLITS:
        np.testing.assert_array_equal(first[split], second[split])


def test_identity_scheme_shuffles_by_seed():
    identities = np.repeat(np.arange(50), 2)
    splits = [spec.split_by_identity(identities, SHARES, seed)["test"] for seed in (0, 1)]
    assert not np.array_equal(*splits)
    assert set(identities[splits[0]]) != set(range(45, 50))


def test_unknown_identities_count_each_as_their_own():
    splits = spec.split_by_identity(np.full(100, -1), SHARES)
    assert [len(positions) for positions in splits.values()] == [70, 20, 10]


def test_official_scheme_follows_the_partition():
    partition = np.array([0, 2, 1, 0], np.uint8)
    splits = spec.split_images(source([1, 1, 1, 1], partition), "official", SHARES)
    assert {split: list(positions) for split, positions in splits.items()} == {
        "private": [0, 3],
        "public": [2],
        "test": [1],
    }


def test_official_scheme_needs_a_partition():
    with pytest.raises(UserError, match="no partition"):
        spec.split_images(source([1, 2, 3]), "official", SHARES)


@pytest.mark.parametrize("scheme", ["paper", "identity"])
def test_an_empty_split_is_an_error_that_names_it(scheme):
    message = f"scheme {scheme} leaves the split test empty: 4 images of 2 known identities"
    with pytest.raises(UserError, match=message):
        spec.split_images(source([3, -1, 3, 7]), scheme, (0.6, 0.38, 0.02))


def test_parse_shares():
    assert spec.parse_shares("0.7,0.2, 0.1") == (0.7, 0.2, 0.1)


@pytest.mark.parametrize(
    "text", ["", "0.5,0.5", "0.7,0.2,0.2", "0.5,0.5,0", "1.5,-0.6,0.1", "a,b,c", "nan,0.5,0.5"]
)
def test_bad_shares_are_refused(text):
    with pytest.raises(UserError, match=r"three positive numbers that sum to 1"):
        spec.parse_shares(text)


@pytest.mark.parametrize(
    ("shares", "name"),
    [
        (spec.PAPER_SHARES, "identity"),
        (SHARES, "identity_70_20_10"),
        ((0.655, 0.245, 0.1), "identity_65.5_24.5_10"),
    ],
)
def test_config_name_tells_shares_other_than_the_papers(shares, name):
    assert spec.config_name("identity", shares) == name


def test_digest_is_that_of_the_bytes():
    lists = spec.Source(None, ["a", "b/c"], np.array([[1], [0]], np.uint8), np.array([7, -1]))
    text = b"a\0b/c" + b"\0" + b"\1\0" + b"\0" + b"\7" + 7 * b"\0" + 8 * b"\xff"
    assert spec.digest(lists, with_partition=True) == hashlib.sha256(text).hexdigest()


def test_digest_counts_the_partition_only_where_it_is_used():
    lists = [source([1, 2], np.array(partition, np.uint8)) for partition in ([0, 1], [1, 0])]
    used, unused = ({spec.digest(s, with_partition=w) for s in lists} for w in (True, False))
    assert (len(used), len(unused)) == (2, 1)
