"""An audit on drawn faces, as a user runs it."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from tfadv.attacks.pairs import FirstPairs, Pairs

from data_prep import faces
from tests.datasets import prepare
from tfadv import cli
from tfadv.attacks import decoder, inversion, registry, suite
from tfadv.attacks.black_box import SavedEncoder
from tfadv.attacks.gradient_search import Search
from tfadv.attacks.knowledge import Member, Target, with_less
from tfadv.config.errors import UserError
from tfadv.config.run_folder import RunFolder
from tfadv.config.schema import Audit, BlackBox, Config, Report
from tfadv.data.dataset import HELD_OUT, PUBLIC, TRAIN, Dataset
from tfadv.data.images import normalize
from tfadv.evaluation import verdicts
from tfadv.evaluation.closure import Score
from tfadv.evaluation.leakage_measures import MEASURES
from tfadv.evaluation.recognition.recognizer import load_recognizer
from tfadv.modes import audit
from tfadv.reporting import audit as audit_page
from tfadv.reporting import audit_sections
from tfadv.training.trainer import TrainingError

pytestmark = pytest.mark.slow  # decoders of three budgets for each of four encoders

ROOT = Path(__file__).parents[2]
CONFIG = """
from tfadv.config.schema import *

def get_config(mode):
    return Config(
        baseline=True,
        data=Data(dir={dir!r}, dataset="synthetic/tiny", size=32, held_out=0.3),
        task=Task(attributes=("Smiling", "Male")),
        model=Model(depth=18, width=0.125, decoder_width=0.125),
        train=Train(steps=30, batch=16, log_every=5, evaluate_every=10, checkpoint_every=10),
        attack=Attack(random_features=40, white_box=2),
        audit=Audit(decoders=("figure6",), steps=2, few=("20",), domain="elsewhere"),
        feature_map=FeatureMap(steps=10, hidden=32),
        metrics=Metrics(replicates=50),
        runtime=Runtime(precision="float32"),
        report=Report(examples=3),
    )
"""


@pytest.fixture(scope="module")
def root(tiny_faces, tmp_path_factory):
    """A folder with a recogniser, an encoder with its baseline, and an audit."""
    root = tmp_path_factory.mktemp("audit")
    data = root / "data"
    (data / "synthetic").mkdir(parents=True)
    (data / "synthetic/tiny").symlink_to(Path(tiny_faces.dir) / "synthetic/tiny")
    (root / "tiny.py").write_text(CONFIG.format(dir=str(data)))
    people = [(number // 5, f"{number}.png") for number in range(60)]
    prepare(str(data), "elsewhere", splits={"extra": people})
    assert call(root, "recognizer", "recognizer", "--config.train.steps=10") == 0
    assert call(root, "protect", "protect") == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "RATES", (1e-3, 3e-3))
        brief = functools.partial(
            inversion.InputInverter, searches=(Search(1.0, 0.1, 5),), restarts=1
        )
        patch.setattr(inversion, "InputInverter", brief)
        assert call(root, "audit", "audit") == 0
    return root


def call(root, mode, name, *flags):
    keras.config.set_dtype_policy("float32")
    where = [f"--config={root / 'tiny.py'}", f"--workdir={root / name}"]
    return cli.main(["run.py", f"--mode={mode}", *where, *flags])


def report_of(root):
    return json.loads((root / "audit/audit.json").read_text())


def test_it_says_what_was_found_of_encoders_and_both_ends_of_the_scale(root):
    report = report_of(root)
    assert list(report["encoders"]) == ["protected", "unprotected", "logits", "answers"]
    for encoder in report["encoders"].values():
        assert set(encoder["measures"]) == set(MEASURES)
        assert not encoder["random"]
        tried = set(registry.MEMBERS) | {f"figure6-pixels-x{times}" for times in (1, 2, 4)}
        assert set(encoder["attackers"]) == tried
    measures = report["encoders"]["protected"]["measures"]
    assert set(measures) == set(report["encoders"]["unprotected"]["measures"])
    page = (root / "audit/report.html").read_text()
    for text in (
        "Audit of the protected encoder",
        "answers only",
        "With fewer public pictures",
        "With pictures of another domain",
        "Information on identity",
        "Of the first 2 test pictures.",
    ):
        assert text in page


def test_attackers_beside_the_verdicts_have_what_they_are_said_to_have(root):
    folder = root / "audit/encoders"
    quick = {name for name, member in registry.MEMBERS.items() if member.is_quick}
    for name in report_of(root)["encoders"]:
        assert {file.stem for file in (folder / name / "few-20").glob("*.npz")} == quick
        # Pictures from elsewhere have no labels of other attributes.
        elsewhere = {file.stem for file in (folder / name / "domain").glob("*.npz")}
        expected = {key for key in quick if not registry.MEMBERS[key].needs_labels}
        # People of one colour, whose pictures may all have the same features.
        assert elsewhere | {"linkage"} == expected
        looked_into = (folder / name / "white_box.npz").exists()
        assert looked_into == (name in ("protected", "unprotected"))
        assert "white_box" not in report_of(root)["encoders"][name]["attackers"]


def test_encoders_are_compared_in_pairs(root):
    encoders = ",".join(str(root / name) for name in ("protect/encoder", "copy/encoder"))
    shutil.copytree(root / "protect", root / "copy")
    measured = json.loads((root / "copy/metrics.json").read_text())
    # As of a noisy encoder.
    (root / "copy/metrics.json").write_text(json.dumps(measured | {"dfil": 0.25}))
    shutil.copytree(root / "audit", root / "pair")
    for name in (root.name, "copy"):
        shutil.copytree(root / "pair/encoders/protected", root / "pair/encoders" / name)
    for name in ("metrics.json", "config.json"):
        (root / "pair" / name).unlink()
    assert call(root, "audit", "pair", f"--config.encoder={encoders}") == 0
    page = (root / "pair/report.html").read_text()
    assert f"{root.name} less copy" in page
    assert "What the noise promises" in page
    assert "What the noise promises" not in (root / "audit/report.html").read_text()


def test_the_ends_of_the_scale_are_as_useful_as_the_encoder_without_defence(root):
    encoders = report_of(root)["encoders"]
    kinds = ("mcc", "mcc_tuned", "mcc_task", "mcc_task_tuned")
    useful = {name: [found[kind] for kind in kinds] for name, found in encoders.items()}
    assert useful["answers"] == useful["logits"] == useful["unprotected"] != useful["protected"]
    of_all, _, of_task, tuned = useful["protected"]
    assert of_all == pytest.approx(of_task * 2 / len(faces.ATTRIBUTES))
    page = (root / "audit/report.html").read_text()
    assert "mean over the task" in page
    assert f"{tuned:.3f}" in page


def test_without_a_recogniser_it_says_what_is_not_tried(root, capsys):
    folder = root / "alone/audit"
    shutil.copytree(root / "audit", folder)
    for name in ("metrics.json", "config.json"):
        (folder / name).unlink()
    assert "No face recognizer" not in (folder / "report.html").read_text()
    assert call(root, "audit", folder, f"--config.encoder={root / 'protect/encoder'}") == 0
    assert "No face recognizer was given. Attacks that guess faces" in capsys.readouterr().out
    assert "No face recognizer was given" in (folder / "report.html").read_text()


def test_the_attacker_that_counts_is_the_strongest_on_held_out_pictures(root):
    for name, encoder in report_of(root)["encoders"].items():
        files = (root / "audit/encoders" / name).glob("*.npz")
        scores = {file.stem: suite.read(file)[0] for file in files}
        scores.pop("white_box", None)  # has more than a black box
        for key, found in encoder["measures"].items():
            measure = MEASURES[key]
            sign = 1 if measure.leaks_upwards else -1
            held_out = {m: s[measure.metric] for m, s in scores.items() if measure.metric in s}
            best = max(sign * score.held_out for score in held_out.values())
            assert sign * held_out[found["attacker"]].held_out == best
            assert held_out[found["attacker"]].test == found["value"]


def test_its_report_follows_the_schema(root):
    schema = json.loads((ROOT / "docs/audit.schema.json").read_text())
    assert not list(violations(report_of(root), schema, schema))
    broken = report_of(root)
    del broken["encoders"]["protected"]["measures"]["pixels"]["attacker"]
    broken["encoders"]["answers"]["random"] = "no"
    broken["limits"] = [1]
    broken["more"] = 0
    assert len(list(violations(broken, schema, schema))) == 4


def violations(value, schema, whole, at="$"):
    """What of a value breaks a JSON schema: the keywords that ours uses."""
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "number": (int, float),
        "null": type(None),
    }
    if "anyOf" in schema:
        if all(list(violations(value, each, whole)) for each in schema["anyOf"]):
            yield at
        return
    if "const" in schema and value != schema["const"]:
        yield at
    names = schema.get("type", [])
    names = [names] if isinstance(names, str) else names
    if names and not any(
        isinstance(value, kinds[n]) and (n == "boolean" or not isinstance(value, bool))
        for n in names
    ):
        yield at
        return
    if isinstance(value, dict):
        yield from (f"{at}.{name}" for name in schema.get("required", []) if name not in value)
        for name, each in value.items():
            inner = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if inner is False:
                yield f"{at}.{name}"
            elif inner:
                yield from violations(each, inner, whole, f"{at}.{name}")
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield at
        for each in value:
            yield from violations(each, schema.get("items", {}), whole, f"{at}[]")


def test_a_larger_leak_than_allowed_ends_with_exit_code_3(root, capsys):
    assert call(root, "audit", "audit", "--config.audit.fail_above=linkage_auc:0") == 3
    err = capsys.readouterr().err
    assert "leaks more than allowed: protected: linkage_auc is " in err
    assert "answers" not in err


def test_a_limit_that_is_kept_ends_well(root):
    converged = report_of(root)["encoders"]["protected"]["measures"]["linkage_auc"]["converged"]
    assert converged
    assert call(root, "audit", "audit", "--config.audit.fail_above=linkage_auc:1") == 0


def test_what_was_done_is_not_done_again(root, tmp_path, capsys):
    shutil.copytree(root / "audit", tmp_path / "audit")
    before = report_of(root)
    (tmp_path / "audit/metrics.json").unlink()
    (tmp_path / "audit/encoders/answers/linkage.npz").unlink()
    flags = [f"--config.encoder={root / 'protect/encoder'}"]
    flags.append(f"--config.recognizer.path={root / 'recognizer/recognizer'}")
    where = [f"--config={root / 'tiny.py'}", f"--workdir={tmp_path / 'audit'}"]
    keras.config.set_dtype_policy("float32")
    assert cli.main(["run.py", "--mode=audit", *where, *flags]) == 0
    out = capsys.readouterr().out
    assert "answers: linkage: linked" in out
    assert "linear decoder" not in out
    assert json.loads((tmp_path / "audit/audit.json").read_text()) == before


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("audit.decoders=figure7", "audit.decoders names figure7; it must be one of figure6, resi"),
        ("audit.losses=l1", "audit.losses names l1; it must be one of pixels, gan, perceptual"),
        ("audit.few=0", "audit.few has '0'; it must be numbers of pictures, above 0"),
        ("audit.domain=folder/nowhere", "audit.domain: there is no dataset folder/nowhere in"),
        ("audit.fail_above=reid:0.1", "audit.fail_above names reid; it must be one of pixels"),
        ("audit.unprotected=nowhere", "encoder nowhere does not exist"),
    ],
)
def test_a_mistake_is_one_line(root, capsys, flag, told):
    assert call(root, "audit", "other", f"--config.{flag}") == 2
    assert told in capsys.readouterr().err


def test_without_an_unprotected_encoder_there_is_nothing_to_compare_with(root, tmp_path, capsys):
    shutil.copytree(root / "protect/encoder", tmp_path / "mine/encoder")
    flags = [f"--config.encoder={tmp_path / 'mine/encoder'}"]
    assert call(root, "audit", "alone", *flags) == 2
    assert "--config.baseline, or name one with --config.audit.unprotected" in (
        capsys.readouterr().err
    )


class Fake:
    """An encoder with noise of its own at each call."""

    feature_shape, split = (2,), None

    def __init__(self):
        self.random = np.random.default_rng(0)

    def __call__(self, images):
        return np.float32(images[:, 0, 0, :2] + self.random.normal(size=(len(images), 2)))


def test_noise_that_is_drawn_anew_is_averaged_away():
    images = np.full((50, 4, 4, 3), 7, np.uint8)
    once, often = Fake()(images), suite.Averaged(Fake(), 100)(images)
    assert np.square(once - 7).mean() == pytest.approx(1, abs=0.4)
    assert np.square(often - 7).mean() == pytest.approx(0.01, abs=0.005)


class Noise(Fake):
    """One that says nothing else."""

    def __call__(self, images):
        return super().__call__(np.zeros_like(images))


class Recorder:
    """A classifier that keeps the features that it was asked about."""

    attributes, feature_shape, thresholds = ("Smiling", "Male"), (2,), None

    def __init__(self):
        self.asked = []

    def __call__(self, features):
        self.asked.append(features)
        return features


@pytest.mark.parametrize(
    ("noise", "expected"), [(0.0, False), (1e-7, False), (0.01, True), (1.0, True)]
)
def test_a_loud_value_does_not_hide_that_others_are_drawn_anew(noise, expected):
    random = np.random.default_rng(0)
    features = np.concatenate([random.normal(size=(64, 8)), np.full((64, 1), 1e4)], axis=1)
    again = features + noise * random.normal(size=features.shape) * (np.arange(9) < 8)
    assert suite.differs(features.astype(np.float32), again.astype(np.float32)) is expected


def test_a_random_encoder_serves_with_one_answer_and_not_with_a_mean(root, tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "MEMBERS", {})
    monkeypatch.setattr(suite, "decoders", lambda config: {})
    config = cli.read_config(str(root / "tiny.py"), "attack")
    config = dataclasses.replace(config, audit=Audit(repeats=100, few=()))
    workdir = RunFolder(tmp_path, "audit", config)
    recorder, task = Recorder(), Recorder.attributes
    look = suite.Auditor(workdir, Dataset(config.data), [], None, task)
    assert look("noisy", Noise(), recorder).is_random
    assert np.concatenate(recorder.asked).std() == pytest.approx(1, abs=0.4)  # a mean: 0.1


def test_what_diverged_passes_no_limit(root, tmp_path, monkeypatch, capsys):
    def diverge(target):
        raise TrainingError("its loss is nan")

    trained = Member("network", "It diverges.", diverge, metrics=("mse", "reid_rank1"))
    monkeypatch.setattr(suite, "MEMBERS", {"ridge": registry.MEMBERS["ridge"], "net": trained})
    monkeypatch.setattr(suite, "decoders", lambda config: {})
    config = cli.read_config(str(root / "tiny.py"), "attack")
    config = dataclasses.replace(config, audit=Audit(few=()), report=Report(pictures=False))
    workdir = RunFolder(tmp_path, "audit", config)
    look = suite.Auditor(workdir, Dataset(config.data), [], None, Recorder.attributes)
    box = SavedEncoder(str(root / "protect/encoder"), BlackBox(), 32)
    for _ in range(2):  # the second time from what was kept
        found = look("mine", box, None)
        assert list(verdicts.of_measure(found.results, MEASURES["pixels"])) == ["ridge"]
        assert not verdicts.is_converged(found.results, MEASURES["pixels"])
        assert verdicts.is_converged(found.results, MEASURES["linkage_auc"])
        assert not found.pictures
    assert capsys.readouterr().out.count("network on mine diverged: its loss is nan") == 1
    with np.load(tmp_path / "encoders/mine/ridge.npz") as kept:
        assert "pictures" not in kept.files


def test_whoever_trains_by_gradients_leaves_a_trace_of_a_divergence(tmp_path, monkeypatch):
    def of(*keys):
        return {MEASURES[key].metric for key in keys}

    decoders = decoder.decoders(Config())
    assert {frozenset(each.metrics) for each in decoders.values()} == {
        frozenset(of("pixels", "face_rank1", "face_auc"))
    }
    assert set(registry.MEMBERS["feature_map"].metrics) == of("guess_rank1", "guess_auc")

    def diverge(*arguments, **options):
        raise TrainingError("its loss is nan")

    monkeypatch.setattr(inversion, "invert_pictures", diverge)
    nothing = dict.fromkeys(("train", "held_out", "dataset", "split", "g", "faces"))
    target = SimpleNamespace(name="mine", config=Config(), folder=tmp_path, **nothing)
    for member in decoders.values():
        with pytest.raises(TrainingError, match="it diverged at every learning rate"):
            member.attack(target)


class People:
    """A dataset whose splits show these people."""

    description = {"name": "faces"}  # noqa: RUF012

    def __init__(self, **splits):
        self._splits = splits

    def annotations(self, split):
        return np.array(self._splits[split]), None


def test_people_in_two_splits_are_refused():
    apart = People(private=[1, 1, 2], public=[3, -1], test=[4, -1])
    assert audit.count_people(apart) == {"private": 2, "public": 1, "test": 1}
    shared = People(private=[1, 2], public=[2, 3], test=[3])
    with pytest.raises(UserError, match=r"^2 people are in two of the splits "):
        audit.count_people(shared)


def trained(path, defence):
    """An encoder as protect leaves it, as far as names go."""
    (path / "encoder").mkdir(parents=True)
    (path / "encoder/encoder.json").touch()
    record = {"config": {"loss": {"lambda1": defence}}}
    (path / "config.json").write_text(json.dumps(record))
    return str(path / "encoder")


def named(*encoders, unprotected=""):
    config = Config(encoder=encoders, audit=Audit(unprotected=unprotected))
    return audit.name_encoders(config)


def test_which_encoder_ends_the_scale(tmp_path):
    first = trained(tmp_path / "first", 1.0)
    second = trained(tmp_path / "second", 1.0)
    plain, other = trained(tmp_path / "plain", 0.0), trained(tmp_path / "other", 0.0)
    assert named(first, plain) == {"protected": first, "unprotected": plain}
    # Others without defence are audited like any.
    expected = {"protected": first, "unprotected_2": plain, "unprotected": other}
    assert named(first, plain, unprotected=other) == expected
    beside = trained(tmp_path / "first/unprotected", 0.0)
    assert named(first, plain) == expected | {"unprotected": beside}
    assert list(named(first, second)) == ["first", "second", "unprotected"]
    foreign = str(tmp_path / "answers")
    assert named(foreign, unprotected=plain) == {"answers_2": foreign, "unprotected": plain}
    with pytest.raises(UserError, match=r"^an audit needs the same encoder without defence"):
        named(second)
    with pytest.raises(UserError, match=r"is the encoder without defence, which ends the scale"):
        named(plain)


def test_of_pixels_a_decoder_may_gain_a_tenth_of_the_gap_between_the_ends():
    def of(held_out):
        pixels = Score(held_out, 0.0, np.zeros(2))
        found = {"ridge": {"mse": pixels}, "linkage": {"linkage_auc": pixels}}
        return verdicts.Audited(found, {}, {}, {}, 1)

    audited = {"mine": of(0.2), "unprotected": of(0.15), "answers": of(0.25)}
    assert verdicts.most_gained(audited, MEASURES["pixels"]) == pytest.approx(0.01)
    assert verdicts.most_gained(audited, MEASURES["linkage_auc"]) == np.inf
    budgets = {f"figure6-pixels-x{times}": mse for times, mse in ((1, 0.3), (2, 0.23), (4, 0.21))}
    wide = np.array([0.1, 0.4])
    results = {name: {"mse": Score(mse, 0.2, wide)} for name, mse in budgets.items()}
    assert verdicts.is_converged(results, MEASURES["pixels"])
    assert not verdicts.is_converged(results, MEASURES["pixels"], 0.01)
    widened = audited | {"mine": dataclasses.replace(audited["mine"], results=results)}
    concluded = verdicts.conclude(widened, [])
    assert not concluded["mine"]["pixels"].is_converged


def test_chance_stands_below_what_leaks_and_every_column_says_what_it_means():
    leak = verdicts.Verdict("linkage", Score(0.1, 0.1, np.full(2, 0.1)), None, True)
    audited = {"mine": verdicts.Audited({}, {}, {}, {}, 1)}
    keys = ("pixels", "face_rank1", "linkage_rank1", "linkage_auc", "attributes")
    guess = {"reid_rank1": 0.014, "verification_auc": 0.5}
    table = audit_page.leaks(audited, {"mine": dict.fromkeys(keys, leak)}, guess)
    label, *values = table.rows[-1]
    assert label.name == "chance"
    assert values == [0.0, None, 0.014, 0.014, 0.5, 0.0]
    assert all(column.meaning for column in table.columns[1:])
    assert all(audit_sections.column(key).meaning for key in MEASURES)


def test_a_decoder_that_diverged_with_a_budget_had_not_enough():
    def result(value):
        return {"mse": Score(value, value, np.linspace(value, value + 0.1, 50))}

    results = {f"d-x{times}": result(0.3) for times in (1, 2, 4)} | {"ridge": result(0.2)}
    assert verdicts.is_converged(results, MEASURES["pixels"])
    results.pop("d-x4")
    assert not verdicts.is_converged(results, MEASURES["pixels"])
    unfinished = Score(0.3, 0.3, np.ones(5), is_finished=False)
    results = {"ridge": result(0.2), "feature_map": {"feature_reid_rank1": unfinished}}
    assert verdicts.is_converged(results, MEASURES["pixels"])
    assert not verdicts.is_converged(results, MEASURES["guess_rank1"])


def test_a_decoder_can_learn_from_a_recogniser_that_gradients_reach(root, tmp_path, monkeypatch):
    monkeypatch.setattr(decoder, "RATES", (1e-3,))
    config = cli.read_config(str(root / "tiny.py"), "attack")
    dataset = Dataset(config.data)
    box = SavedEncoder(str(root / "protect/encoder"), BlackBox(), 32)
    train, held_out = (
        Pairs(box, dataset, PUBLIC, part, box.feature_shape, 100) for part in (TRAIN, HELD_OUT)
    )
    recognizer = load_recognizer(str(root / "recognizer/recognizer"), "auto", "", "synthetic")
    target = Target(
        name="mine",
        train=train,
        held_out=held_out,
        identities=(None, None),
        embeddings=None,
        dataset=dataset,
        g=None,
        config=config,
        folder=tmp_path,
        split=box.split,
        faces=recognizer.differentiable(),
    )
    pictures = normalize(next(train.batches())["images"]).numpy()
    np.testing.assert_allclose(
        target.faces(pictures)[0][:, 0, 0], recognizer(pictures).embedding, atol=1e-5
    )
    options = {"family": "mine", "architecture": "figure6", "loss": "recognizer", "seed": 0}
    decoder.decoder(target, **options, times=1)
    history = (tmp_path / "mine-x1-0.001/history.jsonl").read_text().splitlines()
    assert json.loads(history[-1])["perceptual"] > 0
    with pytest.raises(ValueError, match="only a recogniser that --mode=recognizer made"):
        decoder.decoder(dataclasses.replace(target, faces=None), **options, times=1)


class Kept:
    """Pairs in memory."""

    feature_shape = (1,)

    def __init__(self, count):
        self.count = count

    def batches(self):
        for start in range(0, self.count, 4):
            index = np.arange(start, min(start + 4, self.count))
            yield {"features": index[:, None] * 10.0, "index": index}

    def pictures(self, index):
        return np.asarray(index) * 10


def test_an_attacker_with_less_has_the_pictures_of_whole_people():
    people = np.array([5, 2, 5, -1, 2, 7, 7, 2])
    embeddings = np.arange(8.0)[:, None]
    target = Target(
        name="mine",
        train=Kept(8),
        held_out=Kept(3),
        identities=(people, np.arange(3)),
        embeddings=(embeddings, embeddings[:3]),
        dataset=None,
        g=None,
        config=Config(audit=Audit()),
        folder=Path("folder"),
        split=None,
    )
    less = with_less(target, 5)
    np.testing.assert_array_equal(less.identities[0], [5, 2, 5, 2, 2])
    np.testing.assert_array_equal(less.embeddings[0][:, 0], [0, 1, 2, 4, 7])
    assert less.train.count == 5
    batches = list(less.train.batches())
    np.testing.assert_array_equal(np.concatenate([b["index"] for b in batches]), np.arange(5))
    features = np.concatenate([batch["features"] for batch in batches])[:, 0]
    np.testing.assert_array_equal(features, [0, 10, 20, 40, 70])
    np.testing.assert_array_equal(less.train.pictures(np.array([3, 0])), [40, 0])
    assert isinstance(less.train, FirstPairs)
    assert less.held_out is target.held_out
