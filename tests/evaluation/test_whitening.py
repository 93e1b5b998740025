import tracemalloc

import numpy as np
import pytest

from tfadv.evaluation import whitening
from tfadv.evaluation.whitening import Whitening, to_vectors


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_vectors_stay_as_they_are_however_long(rng):
    features = rng.normal(size=(3, 9000)).astype(np.float32)
    np.testing.assert_array_equal(to_vectors(features), features)


def test_small_maps_are_flattened(rng):
    features = rng.normal(size=(3, 4, 4, 6)).astype(np.float32)
    np.testing.assert_array_equal(to_vectors(features), features.reshape(3, -1))


def test_large_maps_are_averaged_over_areas(rng):
    features = rng.normal(size=(2, 8, 8, 4)).astype(np.float32)
    vectors = to_vectors(features, limit=64)
    areas = features.reshape(2, 4, 2, 4, 2, 4).mean((2, 4))
    np.testing.assert_allclose(vectors, areas.reshape(2, -1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(7, 5, 3), (112, 112, 64), (56, 56, 256), (3, 3, 5000)])
def test_maps_of_any_shape_give_vectors_that_fit(shape):
    vectors = to_vectors(np.ones((1, *shape), np.float32))
    assert vectors.shape[1] <= max(4096, shape[-1])
    np.testing.assert_allclose(vectors, 1.0, rtol=1e-6)


def test_white_vectors_are_uncorrelated_and_of_variance_1(rng):
    vectors = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 5.0
    white = Whitening(np.array_split(vectors, 7))(vectors)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(6), atol=1e-4)
    np.testing.assert_allclose(white.mean(0), 0.0, atol=1e-4)


def test_directions_of_no_variance_are_left_out(rng):
    vectors = rng.normal(size=(100, 3))
    vectors = np.concatenate([vectors, vectors[:, :1] + vectors[:, 1:2], np.ones((100, 1))], axis=1)
    assert Whitening([vectors])(vectors).shape == (100, 3)


def test_long_vectors_are_whitened_in_the_directions_that_they_span(rng, monkeypatch):
    vectors = rng.normal(size=(40, 60)) * np.geomspace(1e-3, 1e3, 60) + 7.0
    asked = vectors[:9] + 0.1 * rng.normal(size=(9, 60))
    short = Whitening(np.array_split(vectors, 3))
    monkeypatch.setattr(whitening, "LONG", 50)
    long = Whitening(np.array_split(vectors, 3))
    np.testing.assert_allclose(long.variances, short.variances, rtol=1e-4)
    signs = np.sign((short(vectors) * long(vectors)).sum(0))
    np.testing.assert_allclose(long(asked), signs * short(asked), rtol=0.02, atol=0.1)


def test_fewer_vectors_span_fewer_directions(rng, monkeypatch):
    monkeypatch.setattr(whitening, "LONG", 50)
    monkeypatch.setattr(whitening, "_SPANNING", 20)
    vectors = rng.normal(size=(400, 60))
    white = Whitening(np.array_split(vectors, 9))(vectors)
    assert white.shape == (400, 20)
    np.testing.assert_allclose(np.square(white[:20]).mean(0), 1.0, rtol=1e-4)


def test_60_000_values_need_less_than_2_gib(rng):
    def batches():
        for _ in range(8):
            yield rng.normal(size=(64, 60_000)).astype(np.float32)

    tracemalloc.start()
    white = Whitening(batches())(next(batches()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert white.shape == (64, 511)
    assert peak < 2**30  # twice as many vectors fit 2 GiB, and no more than that are kept
