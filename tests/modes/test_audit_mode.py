"""An audit on synthetic faces, as a user runs it."""

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_prep import faces
from tests import runs
from tests.datasets import prepare
from tests.runs import call
from tfadv.attacks import decoder, registry
from tfadv.attacks.gradient_search import GradientSearch, Search
from tfadv.config import config_file
from tfadv.config.errors import UserError
from tfadv.config.schema import Audit, Config
from tfadv.evaluation.leakage_measures import MEASURES
from tfadv.evaluation.results import AttackResult
from tfadv.modes import audit

pytestmark = pytest.mark.slow  # decoders of three budgets for each of four encoders

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "docs/audit.schema.json"
CHANGES = (
    "config.baseline = True",
    "config.task.attributes = ('Smiling', 'Male')",
    # 64 numbers a feature: attacks whiten the features of each encoder again and again.
    "config.model.split = 'avgpool'",
    "config.attack.white_box = 2",
    "config.audit = Audit(decoders=('figure6',), steps=2, few=('20',), domain='elsewhere')",
    "config.feature_map.steps = 10",
)


@pytest.fixture(scope="module")
def root(root, tiny_faces):
    """A folder with a recognizer, an encoder with its baseline, and an audit."""
    data = root / "data"
    (data / "synthetic").mkdir(parents=True)
    (data / "synthetic/tiny").symlink_to(Path(tiny_faces.dir) / "synthetic/tiny")
    runs.write_config(root, data, *CHANGES)
    people = [(number // 5, f"{number}.png") for number in range(60)]
    prepare(str(data), "elsewhere", splits={"extra": people})
    assert call(root, "protect", "protect") == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "RATES", (1e-3, 3e-3))
        brief = functools.partial(GradientSearch, searches=(Search(1.0, 0.1, 5),), restarts=1)
        patch.setattr(registry, "GradientSearch", brief)
        assert call(root, "audit", "audit") == 0
    return root


def report_of(root):
    return json.loads((root / "audit/audit.json").read_text())


def attack_names(root):
    """The attacks of the audit, and those of them that are quick."""
    config = config_file.read_config(str(root / "tiny.py"), "attack")
    attacks = registry.build_audit_attacks(config, lambda adversary: None)
    return set(attacks), {name for name, attack in attacks.items() if attack.is_quick}


def test_it_reports_encoders_and_reference_rows(root):
    report = report_of(root)
    assert list(report["encoders"]) == ["protected", "unprotected", "logits", "hard_predictions"]
    for encoder in report["encoders"].values():
        assert set(encoder["measures"]) == set(MEASURES)
        assert not encoder["random"]
        assert set(encoder["attacks"]) == attack_names(root)[0]
        assert {f"figure6-pixels-x{budget}" for budget in (1, 2, 4)} < set(encoder["attacks"])
    measures = report["encoders"]["protected"]["measures"]
    assert set(measures) == set(report["encoders"]["unprotected"]["measures"])
    page = (root / "audit/report.html").read_text()
    for text in (
        "Audit of the protected encoder",
        "hard predictions only",
        "With fewer public images",
        "With images of another domain",
        "Information on identity",
        "Here: the first 2.",
    ):
        assert text in page


def test_attacks_with_less_knowledge_are_the_quick_ones(root):
    _, quick = attack_names(root)
    for name, encoder in report_of(root)["encoders"].items():
        folder = root / "audit/encoders" / name
        assert {file.stem for file in (folder / "fewer-20/attacks").glob("*.npz")} == quick
        elsewhere = {
            file.stem: AttackResult.load(file)
            for file in (folder / "other-domain/attacks").glob("*.npz")
        }
        assert set(elsewhere) == quick
        reason = "no public image has labels of these attributes"
        assert elsewhere["probe_mlp"].not_applicable == reason
        assert elsewhere["ridge"].scores
        search = encoder["attacks"]["gradient_search"]
        assert ("mse" in search) == (name in ("protected", "unprotected"))
        assert ("not_applicable" in search) == (name in ("logits", "hard_predictions"))
        assert all(each["attack"] != "gradient_search" for each in encoder["measures"].values())


def test_encoders_are_compared_in_pairs(root):
    encoders = ",".join(str(root / name) for name in ("protect/encoder", "copy/encoder"))
    shutil.copytree(root / "protect", root / "copy")
    measured = json.loads((root / "copy/metrics.json").read_text())
    # As a noisy encoder's run has it.
    (root / "copy/metrics.json").write_text(json.dumps(measured | {"dfil": 0.25}))
    shutil.copytree(root / "audit", root / "pair")
    for name in (root.name, "copy"):
        shutil.copytree(root / "pair/encoders/protected", root / "pair/encoders" / name)
    for name in ("metrics.json", "config.json"):
        (root / "pair" / name).unlink()
    assert call(root, "audit", "pair", f"--config.encoder={encoders}") == 0
    page = (root / "pair/report.html").read_text()
    assert f"{root.name} minus copy" in page
    assert "What the noise promises" in page
    assert "What the noise promises" not in (root / "audit/report.html").read_text()


def test_reference_rows_are_as_useful_as_the_unprotected_encoder(root):
    encoders = report_of(root)["encoders"]
    kinds = ("mcc", "mcc_tuned", "mcc_task", "mcc_task_tuned")
    useful = {name: [found[kind] for kind in kinds] for name, found in encoders.items()}
    reference = useful["unprotected"]
    assert useful["hard_predictions"] == useful["logits"] == reference != useful["protected"]
    of_all, _, of_task, tuned = useful["protected"]
    assert of_all == pytest.approx(of_task * 2 / len(faces.ATTRIBUTES))
    page = (root / "audit/report.html").read_text()
    assert "mean over the task" in page
    assert f"{tuned:.3f}" in page


def test_without_a_recognizer_it_says_what_is_not_tried(root, capsys):
    folder = root / "alone/audit"
    shutil.copytree(root / "audit", folder)
    for name in ("metrics.json", "config.json"):
        (folder / name).unlink()
    assert "No face recognizer" not in (folder / "report.html").read_text()
    assert call(root, "audit", folder, f"--config.encoder={root / 'protect/encoder'}") == 0
    assert "No face recognizer was given. Attacks that guess faces" in capsys.readouterr().out
    assert "No face recognizer was given" in (folder / "report.html").read_text()


def test_the_attack_of_a_verdict_is_the_strongest_on_held_out_images(root):
    for name, encoder in report_of(root)["encoders"].items():
        files = (root / "audit/encoders" / name / "attacks").glob("*.npz")
        results = {file.stem: AttackResult.load(file) for file in files}
        for key, verdict in encoder["measures"].items():
            measure = MEASURES[key]
            scores = {
                attack: result.scores[measure.metric]
                for attack, result in results.items()
                if measure.metric in result.scores
                and np.isfinite(result.scores[measure.metric].held_out)
            }
            best = max(measure.sign * score.held_out for score in scores.values())
            chosen = scores[verdict["attack"]]
            assert measure.sign * chosen.held_out == best
            assert chosen.value == verdict["value"]


def test_its_report_follows_the_schema(root):
    schema = json.loads(SCHEMA.read_text())
    assert not list(violations(report_of(root), schema, schema))
    broken = report_of(root)
    del broken["encoders"]["protected"]["measures"]["pixels"]["attack"]
    broken["encoders"]["logits"]["random"] = "no"
    broken["limits"] = [1]
    broken["more"] = 0
    assert len(list(violations(broken, schema, schema))) == 4


def violations(value, schema, whole, at="$"):
    """Yields where a value breaks a JSON schema, by the keywords that ours uses."""
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
    assert "does not pass: protected: linkage_auc is " in err
    assert "hard_predictions" not in err


def test_an_audit_within_its_limit_ends_with_exit_code_0(root):
    converged = report_of(root)["encoders"]["protected"]["measures"]["linkage_auc"]["converged"]
    assert converged
    assert call(root, "audit", "audit", "--config.audit.fail_above=linkage_auc:1") == 0
    assert call(root, "audit", "audit", "--config.audit.fail_below=mcc_task:-1") == 0


def test_an_audit_that_is_worse_than_its_gate_allows_ends_with_exit_code_3(root, capsys):
    assert call(root, "audit", "audit", "--config.audit.fail_below=mcc_task:1") == 3
    assert "does not pass: protected: mcc_task is " in capsys.readouterr().err
    earlier = f"--config.audit.baseline={root / 'audit/audit.json'}"
    assert call(root, "audit", "audit", earlier) == 3  # M has 10 steps
    assert "protected: guess_rank1 had not converged" in capsys.readouterr().err


def test_a_result_that_is_kept_is_not_made_again(root, tmp_path, capsys):
    shutil.copytree(root / "audit", tmp_path / "audit")
    before = report_of(root)
    (tmp_path / "audit/metrics.json").unlink()
    (tmp_path / "audit/encoders/hard_predictions/attacks/linkage.npz").unlink()
    flags = [f"--config.encoder={root / 'protect/encoder'}"]
    flags.append(f"--config.recognizer.path={root / 'recognizer/recognizer'}")
    assert call(root, "audit", tmp_path / "audit", *flags) == 0
    out = capsys.readouterr().out
    assert "hard_predictions: linkage: linkage, rank 1" in out
    assert "linear decoder" not in out
    assert json.loads((tmp_path / "audit/audit.json").read_text()) == before


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("audit.decoders=figure7", "audit.decoders names figure7; it must be one of figure6, resi"),
        ("audit.losses=l1", "audit.losses names l1; it must be one of pixels, gan, perceptual"),
        ("audit.few=0", "audit.few has '0'; it must be numbers of images, above 0"),
        ("audit.domain=folder/nowhere", "audit.domain: there is no dataset folder/nowhere in"),
        ("audit.fail_above=reid:0.1", "audit.fail_above names reid; it must be one of pixels"),
        ("audit.fail_below=pixels:0.1", "audit.fail_below names pixels; it must be one of mcc, mc"),
        ("audit.baseline=nowhere", "audit.baseline: nowhere cannot be read: No such file"),
        ("audit.unprotected=nowhere", "encoder nowhere does not exist"),
    ],
)
def test_a_mistake_is_one_line(root, capsys, flag, message):
    assert call(root, "audit", "other", f"--config.{flag}") == 2
    assert message in capsys.readouterr().err


def test_an_audit_runs_without_ends_and_says_what_is_missing(root, tmp_path, capsys):
    shutil.copytree(root / "protect/encoder", tmp_path / "mine/encoder")
    flags = [f"--config.encoder={tmp_path / 'mine/encoder'}"]
    flags.append(f"--config.recognizer.path={root / 'recognizer/recognizer'}")
    for name, kept in (("none", ()), ("own", ("hard_predictions", "logits"))):
        folder = tmp_path / name
        for each in kept:
            shutil.copytree(root / "audit/encoders" / each, folder / "encoders" / each)
        shutil.copytree(root / "audit/encoders/protected", folder / "encoders/encoder")
        assert call(root, "audit", folder, *flags) == 0
        out = capsys.readouterr().out
        page = (folder / "report.html").read_text()
        report = json.loads((folder / "audit.json").read_text())
        assert not list(violations(report, (schema := json.loads(SCHEMA.read_text())), schema))
        for text in (out, page):
            assert "There is no unprotected encoder, so there is no closure" in text
            assert ("No encoder has a classifier beside it" in text) == (not kept)
            assert ("Hard predictions and logits are those of encoder" in text) == bool(kept)
        assert list(report["encoders"]) == ["encoder", *reversed(kept)]
        measures = report["encoders"]["encoder"]["measures"]
        assert all(each["closure"] is None for each in measures.values())
        assert "<caption>Closure" not in page
        shutil.copytree(
            root / "protect/classifier", tmp_path / "mine/classifier", dirs_exist_ok=True
        )


def test_a_measurement_too_weak_to_mean_much_says_so(root):
    assert audit.weaknesses(20, 0.9) == audit.weaknesses(0, None) == []
    (few,) = audit.weaknesses(2, 0.95)
    assert few.startswith("Attacks are chosen on 2 held-out people, and fewer than 20 choose by")
    (poor,) = audit.weaknesses(30, 0.61)
    assert poor.startswith("The recognizer knows real test images with an AUC of 0.610, and below")
    page = (root / "audit/report.html").read_text()
    assert "held-out people, and fewer than 20 choose by chance" in page


class People:
    """A data set whose splits show these people."""

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
    """The files of a protect run that its encoder's name depends on."""
    (path / "encoder").mkdir(parents=True)
    (path / "encoder/encoder.json").touch()
    record = {"config": {"loss": {"lambda1": defence}}}
    (path / "config.json").write_text(json.dumps(record))
    return str(path / "encoder")


def named(*encoders, unprotected=""):
    config = Config(encoder=encoders, audit=Audit(unprotected=unprotected))
    return audit.name_encoders(config)


def test_which_encoder_is_the_unprotected_one(tmp_path):
    first = trained(tmp_path / "first", 1.0)
    second = trained(tmp_path / "second", 1.0)
    plain, other = trained(tmp_path / "plain", 0.0), trained(tmp_path / "other", 0.0)
    assert named(first, plain) == {"protected": first, "unprotected": plain}
    # Other unprotected encoders are audited like any encoder.
    expected = {"protected": first, "unprotected_2": plain, "unprotected": other}
    assert named(first, plain, unprotected=other) == expected
    beside = trained(tmp_path / "first/unprotected", 0.0)
    assert named(first, plain) == expected | {"unprotected": beside}
    assert list(named(first, second)) == ["first", "second", "unprotected"]
    foreign = str(tmp_path / "logits")
    assert named(foreign, unprotected=plain) == {"logits_2": foreign, "unprotected": plain}
    assert named(second) == {"protected": second}
    assert named(foreign) == {"logits_2": foreign}
    with pytest.raises(
        UserError, match=r"is the unprotected encoder, which is one end of the scale"
    ):
        named(plain)
