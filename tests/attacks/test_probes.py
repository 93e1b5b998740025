import dataclasses

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, matthews_corrcoef, roc_auc_score

from tests.public_images import FixedDataset, features_only, make_knowledge
from tfadv.attacks.attack import NotApplicableError
from tfadv.attacks.probes import LinearProbe, MlpProbe, accurate_thresholds
from tfadv.attacks.scoring import EvaluationSet
from tfadv.data.dataset import TEST, WHOLE
from tfadv.data.labels import UNKNOWN

NAMES = ("linear", "folded", "absent", "constant")


def make_examples(count, seed):
    """Features in which one attribute is linear, one is folded and one is absent; labels."""
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
    return vectors, labels.astype(np.uint8)


def fit(attack, train, held_out, names):
    """Fits a probe on features and labels; the data set has one more attribute, in column 0."""
    known = make_knowledge(
        features_only(train[0]), features_only(held_out[0]), labels=(train[1], held_out[1])
    )
    columns = [1 + i for i in range(len(names))]
    known = dataclasses.replace(known, attributes=(names, columns))
    return attack.fit(known, folder=None)


def score(fitted, test, folder):
    """Scores a fitted probe on features and labels of test images; returns its metrics."""
    vectors, labels = test
    labels = np.concatenate([np.ones_like(labels[:, :1]), labels], axis=1)
    pairs = features_only(vectors)
    parts = {(TEST, WHOLE): (pairs.images(slice(None)), np.arange(len(labels)), labels)}
    evaluation = EvaluationSet(FixedDataset(parts), TEST, WHOLE, [], folder, replicates=20)
    return evaluation.score(fitted, pairs)


@pytest.fixture(scope="module")
def examples():
    return tuple(make_examples(count, i) for i, count in enumerate((3000, 600, 600)))


@pytest.fixture(scope="module")
def fitted(examples):
    train, held_out, _ = examples
    attacks = {"linear": LinearProbe(), "mlp": MlpProbe(seed=0)}
    return {name: fit(attack, train, held_out, NAMES) for name, attack in attacks.items()}


@pytest.fixture(scope="module")
def results(examples, fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    return {name: score(each, examples[2], folder) for name, each in fitted.items()}


@pytest.fixture(scope="module")
def metrics(results):
    return {name: result.metrics for name, result in results.items()}


BOTH = pytest.mark.parametrize("probe", ["linear", "mlp"])


@BOTH
def test_a_probe_finds_an_attribute_that_is_linear_in_the_features(metrics, probe):
    assert metrics[probe]["attribute_mcc/linear"] > 0.85
    assert metrics[probe]["attribute_auc/linear"] > 0.97


def test_the_mlp_finds_an_attribute_that_is_folded_and_the_linear_probe_does_not(metrics):
    assert abs(metrics["linear"]["attribute_auc/folded"] - 0.5) < 0.1
    assert metrics["mlp"]["attribute_auc/folded"] > 0.9


@BOTH
def test_an_absent_attribute_is_not_found(metrics, probe):
    assert abs(metrics[probe]["attribute_auc/absent"] - 0.5) < 0.1
    assert abs(metrics[probe]["attribute_mcc/absent"]) < 0.15


@BOTH
def test_an_attribute_that_nobody_has_scores_0_and_has_no_auc(metrics, probe):
    assert metrics[probe]["attribute_mcc/constant"] == 0.0
    assert "attribute_auc/constant" not in metrics[probe]
    aucs = [metrics[probe][f"attribute_auc/{name}"] for name in NAMES[:3]]
    assert metrics[probe]["attribute_auc"] == pytest.approx(np.mean(aucs))


@BOTH
def test_the_mean_over_attributes_has_an_interval(results, probe):
    scores = results[probe].scores
    each = [scores[f"attribute_mcc/{name}"].value for name in NAMES]
    assert scores["attribute_mcc"].value == pytest.approx(np.mean(each))
    low, high = scores["attribute_mcc"].interval
    assert low < scores["attribute_mcc"].value < high
    assert len(scores["attribute_mcc"].replicates) == 20
    assert results[probe].examples == 600


@BOTH
def test_the_majority_predicts_the_more_frequent_label_of_training_images(metrics, examples, probe):
    labels = examples[2][1]
    expected = [accuracy_score(labels[:, i], np.zeros(600)) for i in range(4)]
    for name, accuracy in zip(NAMES, expected, strict=True):
        found = metrics[probe][f"attribute_majority_accuracy/{name}"]
        assert found == pytest.approx(accuracy)
    found = metrics[probe]["attribute_majority_accuracy"]
    assert found == pytest.approx(np.mean(expected))


@BOTH
def test_metrics_of_a_probe_are_scikit_learns(metrics, fitted, examples, probe):
    vectors, labels = examples[2]
    attributes = fitted[probe].attributes
    scores = attributes.score(vectors)
    for i, name in enumerate(NAMES[:3]):
        predicted = scores[:, i] > attributes.mcc_thresholds[i]
        expected = matthews_corrcoef(labels[:, i], predicted)
        assert metrics[probe][f"attribute_mcc/{name}"] == pytest.approx(expected)
        expected = roc_auc_score(labels[:, i], scores[:, i])
        assert metrics[probe][f"attribute_auc/{name}"] == pytest.approx(expected)
        predicted = scores[:, i] > attributes.accuracy_thresholds[i]
        expected = accuracy_score(labels[:, i], predicted)
        assert metrics[probe][f"attribute_accuracy/{name}"] == pytest.approx(expected)


def test_thresholds_are_tuned_on_held_out_images(fitted, examples):
    vectors, labels = examples[1]
    attributes = fitted["linear"].attributes
    scores = attributes.score(vectors)[:, 0]
    best = matthews_corrcoef(labels[:, 0], scores > attributes.mcc_thresholds[0])
    others = np.quantile(scores, np.linspace(0.01, 0.99, 99))
    assert best >= max(matthews_corrcoef(labels[:, 0], scores > each) for each in others)


@BOTH
def test_a_probe_that_found_nothing_is_as_accurate_as_the_majority(metrics, probe):
    accuracy = metrics[probe]["attribute_accuracy/absent"]
    majority = metrics[probe]["attribute_majority_accuracy/absent"]
    assert accuracy == pytest.approx(majority, abs=0.03)


def few_examples(columns=4):
    sizes = (500, 200, 200)
    parts = (make_examples(count, i) for i, count in enumerate(sizes))
    return [(vectors, labels[:, :columns]) for vectors, labels in parts]


def test_one_attribute_alone_can_be_probed(tmp_path):
    train, held_out, test = few_examples(columns=1)
    metrics = score(fit(MlpProbe(), train, held_out, NAMES[:1]), test, tmp_path).metrics
    assert metrics["attribute_mcc/linear"] == metrics["attribute_mcc"] > 0.7


def test_images_without_labels_are_left_out():
    train, held_out, test = few_examples()
    strangers = 100.0 * np.random.default_rng(5).normal(size=(300, 12))
    vectors = np.concatenate([train[0], strangers.astype(np.float32)])
    unknown = np.full((300, 4), UNKNOWN, np.uint8)
    unknown[:, 0] = 1  # one attribute of another data set may be known
    more = vectors, np.concatenate([train[1], unknown])
    expected, found = (
        fit(LinearProbe(), each, held_out, NAMES).attributes.score(test[0])
        for each in (train, more)
    )
    # The strangers change the views of a feature a little. Learned from, they would change all.
    for one, other in zip(found.T, expected.T, strict=True):
        same = np.allclose(one, other, atol=1e-4)
        assert same or np.corrcoef(one, other)[0, 1] > 0.95


@pytest.mark.parametrize("attack", [LinearProbe(), MlpProbe()], ids=["linear", "mlp"])
def test_without_any_labels_a_probe_does_not_apply(attack):
    train, held_out, _ = few_examples()
    unknown = train[0], np.full_like(train[1], UNKNOWN)
    with pytest.raises(NotApplicableError, match="no public image has labels of these attributes"):
        fit(attack, unknown, held_out, NAMES)


@pytest.mark.parametrize("attack", [LinearProbe(), MlpProbe()], ids=["linear", "mlp"])
def test_features_that_never_vary_predict_nothing(attack, tmp_path):
    parts = [(np.ones_like(vectors), labels) for vectors, labels in few_examples()]
    metrics = score(fit(attack, *parts[:2], NAMES), parts[2], tmp_path).metrics
    assert metrics["attribute_mcc"] == 0.0
    assert metrics["attribute_auc"] == pytest.approx(0.5)


def test_the_mlp_goes_on_where_many_attributes_are_never_all_right_at_once(tmp_path):
    """Twenty attributes with noise that no linear probe finds."""

    def examples(count, seed):
        random = np.random.default_rng(seed)
        vectors = random.normal(size=(count, 20)).astype(np.float32)
        noise = 0.3 * random.normal(size=(count, 20))
        return vectors, (np.abs(vectors) + noise > 0.7).astype(np.uint8)

    train, held_out, test = (examples(count, i) for i, count in enumerate((3000, 500, 500)))
    names = [f"a{i}" for i in range(20)]
    aucs = [
        score(fit(attack, train, held_out, names), test, tmp_path).metrics["attribute_auc"]
        for attack in (LinearProbe(), MlpProbe())
    ]
    assert aucs[0] < 0.55
    assert aucs[1] > 0.8


def test_the_accurate_threshold_is_the_best_of_all():
    random = np.random.default_rng(0)
    scores = random.normal(size=(30, 4)).round(1)  # some are equal
    labels = (scores + random.normal(size=scores.shape) > (0.0, 1.0, -9.0, 9.0)).astype(np.uint8)
    thresholds = accurate_thresholds(labels, scores)
    assert list(thresholds[2:]) == [-np.inf, np.inf]  # everybody has it, nobody has it
    candidates = np.concatenate([[-np.inf], scores.ravel()])[:, None]
    for i in range(4):
        accuracy = [accuracy_score(labels[:, i], scores[:, i] > each) for each in candidates]
        found = accuracy_score(labels[:, i], scores[:, i] > thresholds[i])
        assert found == pytest.approx(max(accuracy))
