import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from tfadv.evaluation.metrics.bootstrap import IdentityBootstrap
from tfadv.evaluation.metrics.utility import mcc, tuned_thresholds, utility_metrics

FIXTURE = Path(__file__).parents[2] / "fixtures" / "tensorflow_addons_mcc.json"


@pytest.fixture
def random_case():
    random = np.random.default_rng(0)
    labels = (random.random((200, 5)) < [0.5, 0.1, 0.02, 0.8, 0.3]).astype(np.uint8)
    logits = (labels + random.normal(-1.0, 1.5, labels.shape)).astype(np.float32)
    return labels, logits


def test_mcc_agrees_with_tensorflow_addons():
    recorded = json.loads(FIXTURE.read_text())
    labels = np.array([[int(bit) for bit in row] for row in recorded["labels"]])
    np.testing.assert_allclose(
        mcc(labels, np.array(recorded["logits"])), recorded["mcc"], rtol=0, atol=1e-6
    )


def test_mcc_agrees_with_scikit_learn_at_one_threshold_per_attribute(random_case):
    labels, logits = random_case
    thresholds = np.array([-1.0, 0.0, 0.5, -2.0, 9.0])
    expected = [
        matthews_corrcoef(labels[:, i], logits[:, i] > thresholds[i])
        for i in range(len(thresholds))
    ]
    np.testing.assert_allclose(mcc(labels, logits, thresholds), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("labels", "logits"),
    [([0, 0, 0], [-1, 1, -1]), ([1, 1, 1], [1, 1, 1]), ([0, 1, 0], [-1, -1, -1])],
    ids=["no positive", "all positive", "one answer to all"],
)
def test_mcc_is_zero_where_it_is_undefined(labels, logits):
    assert mcc(np.array(labels)[:, None], np.array(logits, float)[:, None]) == [0.0]


def test_mcc_does_not_overflow_on_millions_of_examples():
    labels = np.tile([0, 1], 2_000_000)[:, None]
    assert mcc(labels, labels - 0.5) == pytest.approx([1.0])


def test_tuned_thresholds_reach_the_best_mcc_of_a_brute_force_search(random_case):
    labels, logits = random_case
    logits = logits.round(1)  # ties among the logits
    thresholds = tuned_thresholds(labels, logits)
    for i, threshold in enumerate(thresholds):
        values = np.unique(logits[:, i].astype(float))
        candidates = [0.0, *(values[:-1] + values[1:]) / 2]
        best = max(matthews_corrcoef(labels[:, i], logits[:, i] > c) for c in candidates)
        reached = matthews_corrcoef(labels[:, i], logits[:, i] > threshold)
        assert reached == pytest.approx(best, abs=1e-12)


def test_tuned_threshold_lies_halfway_between_two_separable_classes():
    labels = np.array([[0], [1], [0], [1]])
    logits = np.array([[2.0], [5.0], [1.0], [7.0]])
    assert tuned_thresholds(labels, logits) == [3.5]


def test_tuned_threshold_separates_neighbouring_floats():
    low, high = np.float64(1.0), np.nextafter(1.0, 2.0)
    labels, logits = np.array([[0], [1]]), np.array([[low], [high]])
    assert mcc(labels, logits, tuned_thresholds(labels, logits)) == [1.0]


@pytest.mark.parametrize(
    ("labels", "logits"),
    [([0, 0, 0], [1, 2, 3]), ([0, 1, 0], [4, 4, 4]), ([1], [4])],
    ids=["one class", "one logit", "one example"],
)
def test_tuned_threshold_stays_zero_when_nothing_can_be_tuned(labels, logits):
    assert tuned_thresholds(np.array(labels)[:, None], np.array(logits, float)[:, None]) == [0.0]


def test_a_tie_goes_to_threshold_zero():
    labels, logits = np.array([[0], [1]]), np.array([[-9.0], [1.0]])
    assert tuned_thresholds(labels, logits) == [0.0]


def test_tuning_a_hundred_thousand_examples_finds_the_middle_of_two_normals():
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, (100_000, 4))
    logits = labels + random.normal(size=labels.shape)
    # Equal variances and priors: the best threshold is halfway between the two means.
    np.testing.assert_allclose(tuned_thresholds(labels, logits), 0.5, atol=0.15)


def test_metrics_are_named_by_attribute_with_their_mean():
    labels = np.array([[0, 1], [1, 1], [0, 0], [1, 0]])
    logits = np.array([[-1, 1], [1, 1], [-1, 1], [1, 1]], float)
    assert utility_metrics(["Smiling", "Bald"], labels, logits) == {
        "mcc/Smiling": 1.0,
        "mcc/Bald": 0.0,
        "mcc": 0.5,
        "mcc_task": 1.0 / 2,
    }


def test_attributes_outside_the_task_count_zero_in_the_mean_over_all():
    labels = np.array([[0, 1, 0, 1], [1, 1, 0, 0]])
    logits = np.array([[1.0], [-1.0]])
    metrics = utility_metrics(["A", "B", "C", "D"], labels, logits, task=["D"])
    assert metrics == {"mcc/D": 1.0, "mcc": 0.25, "mcc_task": 1.0}


def test_tuned_means_appear_with_thresholds():
    labels, logits = np.array([[0, 0], [1, 0]]), np.array([[2.0], [4.0]])
    metrics = utility_metrics(["A", "B"], labels, logits, task=["A"], thresholds=np.array([3.0]))
    assert (metrics["mcc"], metrics["mcc_tuned"], metrics["mcc_task_tuned"]) == (0.0, 0.5, 1.0)


@pytest.mark.parametrize(
    ("labels", "logits", "message"),
    [
        ([[0, 1]], [[0.0]], r"\(1, 2\) and logits \(1, 1\)"),
        ([[0, 2]], [[0.0, 0.0]], "labels must be 0 or 1"),
        ([[0, 1]], [[np.nan, 0.0]], "1 of 2 logits are not finite"),
    ],
)
def test_bad_input_is_named(labels, logits, message):
    with pytest.raises(ValueError, match=message):
        mcc(np.array(labels), np.array(logits))


def test_intervals_are_the_percentiles_of_scikit_learn_on_resampled_people(random_case):
    labels, logits = random_case
    identities = np.repeat(np.arange(50), 4)
    bootstrap = IdentityBootstrap(identities, 40)
    means = []
    for weights in bootstrap.weights:
        drawn = np.repeat(np.arange(200), weights[bootstrap.person])
        scores = [matthews_corrcoef(labels[drawn, i], logits[drawn, i] > 0) for i in (1, 2, 3)]
        means.append(np.mean(scores))
    metrics = utility_metrics(
        list("ABCDE"), labels, logits[:, 1:4], task=list("BCD"), bootstrap=bootstrap
    )
    expected = np.percentile(means, [2.5, 97.5])
    np.testing.assert_allclose(metrics["mcc_task_ci95"], expected, atol=1e-12)
    np.testing.assert_allclose(metrics["mcc_ci95"], expected * 3 / 5, atol=1e-12)
    without = utility_metrics(list("ABCDE"), labels, logits[:, 1:4], task=list("BCD"))
    assert metrics == without | {name: metrics[name] for name in ("mcc_ci95", "mcc_task_ci95")}


def test_an_unknown_task_attribute_is_named():
    with pytest.raises(ValueError, match="Smilling"):
        utility_metrics(["Smiling"], np.zeros((1, 1)), np.zeros((1, 1)), task=["Smilling"])


def test_labels_of_the_task_only_are_refused():
    with pytest.raises(ValueError, match="must be \\[N, 2\\]"):
        utility_metrics(["A", "B"], np.zeros((3, 1)), np.zeros((3, 1)), task=["B"])
