import math

import numpy as np
import pytest

from tests.public_people import (
    ATTRIBUTES,
    SIZE,
    Halves,
    HalvesRecognizer,
    make_dataset,
    make_part,
)
from tfadv.attacks import decoder
from tfadv.attacks.attack import Attack, FittedAttack, NotApplicableError
from tfadv.attacks.registry import build_attacks, build_audit_attacks, encoder_metrics
from tfadv.attacks.ridge import RidgeDecoder
from tfadv.attacks.stability import differs
from tfadv.attacks.suite import Suite
from tfadv.config import schema
from tfadv.config.errors import UserError
from tfadv.evaluation.leakage_measures import IDENTITIES, LABELS, MEASURES, RECOGNIZER
from tfadv.training.trainer import TrainingError


def make_suite(folder, attacks, *, recognizers=(), dataset=None, **options):
    dataset = dataset or make_dataset()
    options = {"replicates": 20} | options
    return Suite(dataset, recognizers, folder / "cache", attacks, **options)


class Fake(Attack):
    """An attack that reconstructs grey images, or fails."""

    title, meaning, diverges_in = "grey images", "Shows a grey image.", ("mse",)

    def __init__(self, error=None, *, needs=(), examples=0):
        self._error, self._examples = error, examples
        self.needs = frozenset(needs)
        self.known = []

    def fit(self, knowledge, folder):
        self.known.append(knowledge)
        if self._error is not None:
            raise self._error
        return FittedAttack(
            reconstruct=lambda features: np.zeros((len(features), SIZE, SIZE, 3), np.float32),
            examples=self._examples,
        )


def run(folder, attack, encoder=None, *, recognizers=(), dataset=None, **options):
    """Runs one attack; returns its result."""
    suite = make_suite(folder, {"fake": attack}, recognizers=recognizers, dataset=dataset)
    return suite.run("mine", encoder or Halves(), folder, **options).attacks["fake"]


# The registry


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """All attacks of both modes, shortened, and their results."""
    folder = tmp_path_factory.mktemp("everything")
    config = schema.Config(
        model=schema.Model(decoder_width=0.0625),
        data=schema.Data(size=SIZE),
        train=schema.Train(steps=2, batch=8, log_every=1, evaluate_every=2, checkpoint_every=2),
        attack=schema.Attack(white_box=2),
        audit=schema.Audit(decoders=("figure6",), losses=("pixels", "recognizer"), steps=1),
        feature_map=schema.FeatureMap(steps=2, hidden=8),
    )
    attacks = build_attacks(config, lambda adversary: None)
    attacks |= build_audit_attacks(config, lambda adversary: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "RATES", (1e-3,))
        suite = make_suite(folder, attacks, recognizers=[HalvesRecognizer()])
        return attacks, suite.run(
            "mine", Halves(), folder, task=ATTRIBUTES[:1], with_separation=True
        )


def test_every_attack_of_the_registry_has_a_result(everything):
    attacks, result = everything
    assert list(result.attacks) == list(attacks)
    assert not any(each.diverged for each in result.attacks.values())
    without = {name: each.not_applicable for name, each in result.attacks.items()}
    by_recognizer = "only a recognizer of --mode=recognizer has gradients"
    assert {name: reason for name, reason in without.items() if reason} == {
        "gradient_search": "predictions, and means of several features, have no gradient",
        "figure6-recognizer-x1": by_recognizer,
        "figure6-recognizer-x2": by_recognizer,
        "figure6-recognizer-x4": by_recognizer,
    }


def test_every_measure_is_scored_on_test_and_held_out_people_by_some_attack(everything):
    attacks, result = everything
    measured, metrics = set(), {measure.metric for measure in MEASURES.values()}
    for name, each in result.attacks.items():
        assert (each.family, each.budget) == (attacks[name].family, attacks[name].budget)
        if each.not_applicable:
            assert not each.scores
            continue
        assert each.examples == 24
        assert set(attacks[name].diverges_in) <= set(each.scores)
        for metric in metrics & set(each.scores):
            score = each.scores[metric]
            assert math.isfinite(score.value)
            assert math.isfinite(score.held_out)
            assert len(score.replicates) == 20
            measured.add(metric)
    assert measured == metrics


def test_attributes_of_the_task_are_not_inferred(everything):
    _, result = everything
    names = set(result.attacks["probe_linear"].scores)
    assert "attribute_mcc/Red" in names
    assert "attribute_mcc/Bright" not in names


def test_the_people_are_recognized_and_separated(everything):
    _, result = everything
    assert result.attacks["linkage"].metrics["linkage_auc"] > 0.9
    assert result.separation["lda_score"] > 1.0
    assert (result.public_images, result.is_random, result.utility) == (60, False, {})


class GuessBlack(Attack):
    """An attack that is not in the registry: it guesses one embedding for all."""

    title, meaning = "black", "Guesses the embedding of a black image."
    needs = frozenset({RECOGNIZER})

    def fit(self, knowledge, folder):
        return FittedAttack(
            embed=lambda features: np.ones((len(features), 6), np.float32),
            mean_embedding=np.zeros(6),
        )


def test_a_new_attack_needs_nothing_but_its_entry(tmp_path):
    suite = make_suite(tmp_path, {"black": GuessBlack()}, recognizers=[HalvesRecognizer()])
    metrics = encoder_metrics(suite.run("mine", Halves(), tmp_path))
    assert metrics["black/feature_verification_auc"] == pytest.approx(0.5)
    assert {"black/feature_reid_rank1", "black/feature_similarity"} <= set(metrics)


# Results


def test_an_attack_learns_from_public_images_and_is_scored_on_both_sets(tmp_path):
    attack = Fake()
    result = run(tmp_path, attack)
    assert (attack.known[0].train.count, attack.known[0].held_out.count) == (60, 24)
    parts = [make_part(6, seed)[0] / 127.5 - 1.0 for seed in (2, 1)]
    expected = [np.square(images).mean() for images in parts]
    score = result.scores["mse"]
    assert [score.value, score.held_out] == pytest.approx(expected, rel=1e-5)


def test_an_attacker_knows_the_first_recognizer_and_the_networks_of_its_losses(tmp_path):
    class Differentiable(HalvesRecognizer):
        def differentiable(self):
            return "faces with gradients"

    attack = Fake()
    suite = make_suite(tmp_path, {"fake": attack}, recognizers=[Differentiable()], g="VGG19")
    suite.run("mine", Halves(), tmp_path, task=["Bright"])
    known = attack.known[0]
    assert (known.name, known.g, known.faces) == ("mine", "VGG19", "faces with gradients")
    assert known.attributes == (["Red"], [1])
    expected = HalvesRecognizer()(make_part(15, 0)[0] / 127.5 - 1.0).embedding
    np.testing.assert_allclose(known.train.embeddings.embedding, expected, atol=1e-6)


def test_an_attack_on_a_few_images_has_no_held_out_score(tmp_path):
    score = run(tmp_path, Fake(examples=2)).scores["mse"]
    assert math.isfinite(score.value)
    assert math.isnan(score.held_out)


def test_a_result_that_is_kept_is_not_made_again(tmp_path, capsys):
    attack = Fake()
    first, second = (run(tmp_path, attack) for _ in range(2))
    assert len(attack.known) == 1
    assert second.metrics == first.metrics
    np.testing.assert_array_equal(second.images, first.images)
    assert capsys.readouterr().out.count("mine: grey images: reconstruction (MSE) 0.") == 1


@pytest.mark.parametrize(
    ("need", "reason"),
    [
        (RECOGNIZER, "there is no face recognizer"),
        (LABELS, "the task has all attributes of the data set"),
        (IDENTITIES, "no identity is known"),
    ],
)
def test_an_attack_whose_needs_are_not_met_does_not_apply(tmp_path, capsys, need, reason):
    images, identities, labels = make_part(15, 0)
    dataset = make_dataset((images, np.full_like(identities, -1), labels))
    attack = Fake(needs={need})
    result = run(tmp_path, attack, dataset=dataset, task=ATTRIBUTES)
    assert result.not_applicable == reason
    assert not result.scores
    assert not attack.known
    assert f"mine: grey images: does not apply: {reason}\n" in capsys.readouterr().out


def test_an_attack_whose_needs_are_met_runs(tmp_path):
    attack = Fake(needs={RECOGNIZER, LABELS, IDENTITIES})
    assert run(tmp_path, attack, recognizers=[HalvesRecognizer()], task=["Red"]).scores


def test_an_attack_that_does_not_apply_is_recorded_with_its_reason(tmp_path):
    attack = Fake(NotApplicableError("the encoder is too small"))
    for _ in range(2):  # the second time from what was kept
        result = run(tmp_path, attack)
        assert (result.not_applicable, result.metrics) == ("the encoder is too small", {})
    assert len(attack.known) == 1


def test_a_training_that_diverges_is_recorded_without_numbers(tmp_path, capsys):
    attack = Fake(TrainingError("its loss is nan"))
    for _ in range(2):  # the second time from what was kept
        result = run(tmp_path, attack)
        assert result.diverged == "its loss is nan"
        assert math.isnan(result.scores["mse"].value)
        assert result.metrics == {}
    assert capsys.readouterr().out == "mine: grey images: diverged: its loss is nan\n"


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), KeyError("a bug"), UserError("bad"), np.linalg.LinAlgError("x")]
)
def test_any_other_error_of_an_attack_ends_the_run_and_leaves_no_result(tmp_path, error):
    with pytest.raises(type(error)):
        run(tmp_path, Fake(error))
    assert run(tmp_path, Fake()).scores


@pytest.mark.parametrize("examples", [0, 3])
def test_results_keep_as_many_images_as_the_page_shows(tmp_path, examples):
    for _ in range(2):  # the second time from what was kept
        suite = make_suite(tmp_path, {"fake": Fake()}, examples=examples)
        images = suite.run("mine", Halves(), tmp_path).attacks["fake"].images
        assert (0 if images is None else len(images)) == examples


# Attackers with less


def test_quick_attacks_also_run_with_fewer_images(tmp_path):
    quick, slow = Fake(), Fake()
    slow.is_quick = False
    suite = make_suite(tmp_path, {"quick": quick, "slow": slow})
    found = suite.run("mine", Halves(), tmp_path, fewer_images=(20, 8, 60, 500)).fewer_images
    assert {count: list(results) for count, results in found.items()} == {
        8: ["quick"],
        20: ["quick"],
    }
    assert [known.train.count for known in quick.known] == [60, 8, 20]
    assert len(set(quick.known[1].train.identities)) == 2  # of four images each
    assert len(slow.known) == 1


def test_quick_attacks_also_learn_from_another_domain_only(tmp_path):
    attack = Fake()
    own, elsewhere = make_part(15, 0), make_part(5, 7, offset=900)
    both = tuple(np.concatenate(pair) for pair in zip(own, elsewhere, strict=True))
    suite = make_suite(tmp_path, {"fake": attack})
    result = suite.run("mine", Halves(), tmp_path, other_domain=make_dataset(both))
    assert list(result.other_domain) == ["fake"]
    assert [known.train.count for known in attack.known] == [60, 20]
    assert attack.known[1].train.identities.min() == 900
    first = next(attack.known[1].train.pairs.batches())["images"]
    np.testing.assert_array_equal(first, elsewhere[0][: len(first)])


# Random encoders


class Noisy(Halves):
    """Standard normal noise, and nothing else."""

    def __init__(self):
        super().__init__()
        self._random = np.random.default_rng(0)

    def __call__(self, images):
        return np.float32(self._random.normal(size=super().__call__(images).shape))


class Recorder:
    """A classifier that keeps the features that it gets."""

    attributes, feature_shape, thresholds = ("Bright",), (6,), None

    def __init__(self):
        self.features = []

    def __call__(self, features):
        self.features.append(features)
        return features[:, :1]


def test_a_random_encoder_is_averaged_for_attacks_and_asked_once_for_its_task(tmp_path):
    attack, recorder = Fake(), Recorder()
    suite = make_suite(tmp_path, {"fake": attack})
    result = suite.run("mine", Noisy(), tmp_path, classify=recorder, repeats=16)
    assert result.is_random
    assert "mcc/Bright" in result.utility
    assert np.concatenate(recorder.features).std() == pytest.approx(1, abs=0.2)
    deviations = [known.train.vectors().std() for known in attack.known]
    # Fewer queries first, then all.
    assert deviations == pytest.approx([1, 1 / 2, 1 / 4], rel=0.15)
    assert {count: list(each) for count, each in result.fewer_queries.items()} == {
        1: ["fake"],
        4: ["fake"],
    }
    assert [known.train.count for known in attack.known] == [16 * 60, 60, 60]
    assert [known.held_out.count for known in attack.known] == [24, 24, 24]
    # All of them count.
    assert list(result.attacks) == ["fake", "fake-queries-1", "fake-queries-4"]
    assert suite.attacks["fake-queries-1"].title == "grey images, 1 query"


def test_slow_attacks_also_get_a_single_feature_of_a_random_encoder(tmp_path):
    slow = Fake()
    slow.is_quick, slow.family, slow.budget = False, "fake", 2
    result = make_suite(tmp_path, {"slow": slow}).run("mine", Noisy(), tmp_path, repeats=16)
    assert {key: (each.family, each.budget) for key, each in result.attacks.items()} == {
        "slow": ("fake", 2),
        "slow-queries-1": ("fake-queries-1", 2),
    }
    assert result.fewer_queries == {1: {}, 4: {}}


def test_all_features_of_an_image_are_examples_with_what_is_known_of_the_image(tmp_path):
    attack = Fake()
    suite = make_suite(tmp_path, {"fake": attack}, recognizers=[HalvesRecognizer()])
    suite.run("mine", Noisy(), tmp_path, task=["Bright"], repeats=3)
    images, identities, labels = make_part(15, 0)
    train = attack.known[0].train
    np.testing.assert_array_equal(train.identities, np.tile(identities, 3))
    np.testing.assert_array_equal(train.labels, np.tile(labels[:, 1:], (3, 1)))
    np.testing.assert_array_equal(train.pairs.images(np.arange(180)), np.tile(images, (3, 1, 1, 1)))
    expected = HalvesRecognizer()(images / 127.5 - 1.0).embedding
    np.testing.assert_allclose(train.embeddings.embedding, np.tile(expected, (3, 1)), atol=1e-6)
    features = train.vectors()
    assert not np.allclose(features[:60], features[60:120])


def test_examples_are_repeated_as_far_as_the_memory_goes(tmp_path):
    attack = Fake()
    bytes_each = 3 * SIZE**2 + 4 * 6
    suite = make_suite(tmp_path, {"fake": attack}, memory_mb=130 * bytes_each / 2**20)
    suite.run("mine", Noisy(), tmp_path, repeats=16)
    assert attack.known[0].train.count == 2 * 60


def test_a_random_encoder_that_is_asked_once_is_not_averaged(tmp_path):
    attack = Fake()
    result = make_suite(tmp_path, {"fake": attack}).run("mine", Noisy(), tmp_path, repeats=1)
    assert result.is_random
    assert not result.fewer_queries
    assert attack.known[0].train.vectors().std() == pytest.approx(1, abs=0.2)


def test_an_encoder_that_is_not_random_is_asked_once_per_image(tmp_path):
    encoder = Halves()
    suite = make_suite(tmp_path, {"ridge": RidgeDecoder()})
    result = suite.run("mine", encoder, tmp_path, repeats=16)
    assert (result.is_random, result.fewer_queries) == (False, {})
    # 108 for the attacks, and the others to see what a feature depends on.
    assert 108 < encoder.count < 600


def test_an_encoder_that_is_refused_is_not_attacked(tmp_path):
    class Reversed(Halves):
        def __call__(self, images):
            return super().__call__(images)[::-1]

    attack = Fake()
    with pytest.raises(UserError, match="the features of mine depend on the other images"):
        run(tmp_path, attack, Reversed())
    assert not attack.known


def test_an_encoder_that_changes_while_it_is_attacked_is_refused(tmp_path):
    class Changing(Halves):
        def __call__(self, images):
            return super().__call__(images) * (1 if self.count < 230 else 2)

    attack = Fake()
    with pytest.raises(UserError, match="the features of mine depend on how often"):
        run(tmp_path, attack, Changing())
    assert attack.known


@pytest.mark.parametrize(
    ("noise", "expected"), [(0.0, False), (1e-7, False), (0.01, True), (1.0, True)]
)
def test_a_dimension_of_large_values_does_not_hide_noise_in_others(noise, expected):
    random = np.random.default_rng(0)
    features = np.concatenate([random.normal(size=(64, 8)), np.full((64, 1), 1e4)], axis=1)
    again = features + noise * random.normal(size=features.shape) * (np.arange(9) < 8)
    assert differs(features.astype(np.float32), again.astype(np.float32)) is expected
