import numpy as np
import pytest
from sklearn.metrics import accuracy_score, matthews_corrcoef, roc_auc_score

from tfadv.attacks import probes
from tfadv.attacks.probes import Examples, accurate_thresholds, probe_attributes
from tfadv.evaluation.whitening import Whitening

NAMES = ("linear", "folded", "absent", "constant")


def make_examples(count, seed):
    """Features in which one attribute is linear, one needs a bend, and one isn't there."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(count, 12)).astype(np.float32)
    labels = np.stack(
        [
            vectors[:, 0] + vectors[:, 1] > 0.8,
            np.abs(vectors[:, 2]) > 0.7,
            random.random(count) > 0.7,
            np.zeros(count),
        ],
        axis=1,
    )
    return Examples(vectors, labels.astype(np.uint8))


@pytest.fixture(scope="module")
def found():
    train, held_out, test = (make_examples(count, i) for i, count in enumerate((3000, 600, 600)))
    return probe_attributes(train, held_out, test, NAMES, seed=0)


def test_both_probes_find_an_attribute_that_is_linear_in_the_features(found):
    for probe in ("probe_linear", "probe_mlp"):
        assert found[f"{probe}/mcc/linear"] > 0.85
        assert found[f"{probe}/auc/linear"] > 0.97


def test_only_the_mlp_finds_an_attribute_that_needs_a_bend(found):
    assert abs(found["probe_linear/auc/folded"] - 0.5) < 0.1
    assert found["probe_mlp/auc/folded"] > 0.9


def test_an_attribute_that_is_not_there_is_not_found(found):
    for probe in ("probe_linear", "probe_mlp"):
        assert abs(found[f"{probe}/auc/absent"] - 0.5) < 0.1
        assert abs(found[f"{probe}/mcc/absent"]) < 0.15


def test_an_attribute_nobody_has_scores_0_and_has_no_auc(found):
    for probe in ("probe_linear", "probe_mlp"):
        assert found[f"{probe}/mcc/constant"] == 0.0
        assert f"{probe}/auc/constant" not in found
        means = [found[f"{probe}/auc/{name}"] for name in NAMES[:3]]
        assert found[f"{probe}/auc"] == pytest.approx(np.mean(means))


def test_the_majority_answers_as_most_training_pictures_do(found):
    labels = make_examples(600, 2).labels
    expected = [
        accuracy_score(labels[:, i], np.full(600, most)) for i, most in enumerate((0, 0, 0, 0))
    ]
    assert found["probe_majority/accuracy/linear"] == pytest.approx(expected[0])
    assert found["probe_majority/accuracy"] == pytest.approx(np.mean(expected))


def test_measures_of_the_linear_probe_are_scikit_learns():
    train, held_out, test = (make_examples(count, i) for i, count in enumerate((500, 200, 200)))
    found = probe_attributes(train, held_out, test, NAMES, seed=0)
    score = probes.linear_probe(train, held_out, Whitening([train.vectors]))
    held_out_scores, scores = score(held_out.vectors), score(test.vectors)
    threshold = probes.tuned_thresholds(held_out.labels, held_out_scores)[0]
    predicted, labels = scores[:, 0] > threshold, test.labels[:, 0]
    assert found["probe_linear/mcc/linear"] == pytest.approx(matthews_corrcoef(labels, predicted))
    assert found["probe_linear/auc/linear"] == pytest.approx(roc_auc_score(labels, scores[:, 0]))


def test_one_attribute_alone_can_be_probed():
    train, held_out, test = (
        Examples(each.vectors, each.labels[:, :1])
        for each in (make_examples(count, i) for i, count in enumerate((500, 200, 200)))
    )
    found = probe_attributes(train, held_out, test, NAMES[:1], seed=0)
    assert found["probe_mlp/mcc/linear"] == found["probe_mlp/mcc"] > 0.7


def test_the_mlp_goes_on_where_many_attributes_are_never_right_all_at_once():
    """Twenty attributes, each with noise of its own, that a straight line does not find."""

    def examples(count, seed):
        random = np.random.default_rng(seed)
        vectors = random.normal(size=(count, 20)).astype(np.float32)
        noise = 0.3 * random.normal(size=(count, 20))
        labels = np.abs(vectors) + noise > 0.7
        return Examples(vectors, labels.astype(np.uint8))

    splits = (examples(count, i) for i, count in enumerate((3000, 500, 500)))
    found = probe_attributes(*splits, [f"a{i}" for i in range(20)], seed=0)
    assert found["probe_linear/auc"] < 0.55
    assert found["probe_mlp/auc"] > 0.8


def test_the_accurate_threshold_is_the_one_that_counting_finds():
    random = np.random.default_rng(0)
    scores = random.normal(size=(30, 4)).round(1)  # some are equal
    labels = (scores + random.normal(size=scores.shape) > (0.0, 1.0, -9.0, 9.0)).astype(np.uint8)
    thresholds = accurate_thresholds(labels, scores)
    assert list(thresholds[2:]) == [-np.inf, np.inf]  # all have it, nobody does
    candidates = np.concatenate([[-np.inf], scores.ravel()])[:, None]
    for i in range(4):
        accuracy = [accuracy_score(labels[:, i], scores[:, i] > each) for each in candidates]
        found = accuracy_score(labels[:, i], scores[:, i] > thresholds[i])
        assert found == pytest.approx(max(accuracy))


def test_a_probe_that_found_nothing_is_as_accurate_as_the_majority(found):
    for probe in ("probe_linear", "probe_mlp"):
        accuracy = found[f"{probe}/accuracy/absent"]
        assert accuracy == pytest.approx(found["probe_majority/accuracy/absent"], abs=0.03)
