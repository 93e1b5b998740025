import json
import math

import numpy as np
import pytest

from tfadv.evaluation.results import AttackResult, PairScores, Score, Training

SCORES = {
    "mse": Score(0.25, np.array([0.2, 0.3, 0.4]), held_out=0.26),
    "mcc/Smiling": Score(0.5),
    "verification_auc/other": Score(math.nan),
}
PAIRS = {
    name: PairScores(
        (np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.9, 1.0])),
        np.array([0.5, 0.6]),
        np.array([0.1, 0.2, 0.3]),
    )
    for name in ("", "faces")
}
FULL = AttackResult(
    SCORES,
    images=np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3),
    pairs=PAIRS,
    examples=20,
    held_out_loss=0.3,
    training=Training(40, True, 0.3, 1000.0, ([20, 40], [0.4, 0.3])),
    family="figure6-pixels",
    budget=2,
)


def assert_same(found, expected):
    """Compares all but images and training curves."""
    assert list(found.scores) == list(expected.scores)
    for name, score in expected.scores.items():
        np.testing.assert_array_equal(found.scores[name].value, score.value)
        np.testing.assert_array_equal(found.scores[name].held_out, score.held_out)
        np.testing.assert_array_equal(found.scores[name].replicates, score.replicates)
    assert set(found.pairs) == set(expected.pairs)
    for name, pairs in expected.pairs.items():
        np.testing.assert_array_equal(found.pairs[name].roc, pairs.roc)
        np.testing.assert_array_equal(found.pairs[name].genuine, pairs.genuine)
        np.testing.assert_array_equal(found.pairs[name].impostor, pairs.impostor)
    for field in ("examples", "family", "budget", "not_applicable", "diverged"):
        assert getattr(found, field) == getattr(expected, field)
    np.testing.assert_array_equal(found.held_out_loss, expected.held_out_loss)
    assert (found.training is None) == (expected.training is None)


def test_a_saved_result_is_loaded_with_everything(tmp_path):
    path = tmp_path / "new" / "folder" / "ridge.npz"
    FULL.save(path)
    found = AttackResult.load(path)
    assert_same(found, FULL)
    np.testing.assert_array_equal(found.images, FULL.images)
    assert found.training.steps == 40
    assert found.training.converged is True
    assert tuple(found.training.curve) == FULL.training.curve
    assert [each.name for each in path.parent.iterdir()] == ["ridge.npz"]


@pytest.mark.parametrize(
    "result",
    [
        AttackResult(),
        AttackResult(not_applicable="there is no face recognizer"),
        AttackResult({"mse": Score(math.nan)}, diverged="its loss is nan"),
    ],
    ids=["empty", "not applicable", "diverged"],
)
def test_a_result_without_numbers_is_loaded_with_its_reason(tmp_path, result):
    result.save(tmp_path / "attack.npz")
    found = AttackResult.load(tmp_path / "attack.npz")
    assert_same(found, result)
    assert found.images is None


def test_metrics_are_the_finite_numbers_with_their_intervals():
    metrics = FULL.metrics
    assert metrics.pop("mse_ci95") == pytest.approx([0.205, 0.395])  # of 0.2, 0.3 and 0.4
    assert metrics == {
        "mse": 0.25,
        "mcc/Smiling": 0.5,
        "test_examples": 20,
        "held_out_loss": 0.3,
    }
    json.dumps(FULL.metrics, allow_nan=False)


def test_a_diverged_attack_has_no_metrics():
    assert AttackResult({"mse": Score(math.nan)}, diverged="its loss is nan").metrics == {}


def test_a_score_without_replicates_has_no_interval():
    assert Score(0.5).interval is None
    assert math.isnan(Score(0.5).held_out)
