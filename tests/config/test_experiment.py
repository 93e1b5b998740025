import copy
from pathlib import Path

import pytest

from tfadv import cli
from tfadv.config import config_file, experiment
from tfadv.config.errors import UserError
from tfadv.config.experiment import Claim, Experiment, Plot, Row
from tfadv.config.schema import SPLITS, Attack, Config, Data, FeatureMap, Recognizer
from tfadv.models.encoder import Encoder

ROOT = Path(__file__).parents[2]
TABLES = ("table1", "table2", "table3", "figure4", "defences")


def base(mode):
    return Config(data=Data(size=32), baseline=True)


def make(*rows, **options):
    return Experiment("Title", "About.", base, rows, **options)


def plan(*rows, override=copy.deepcopy, root=Path("out"), **options):
    return experiment.plan(make(*rows, **options), root, "name", override)


NONE, DEFENCE = {"loss.lambda1": 0.0}, {"loss.lambda1": 1.0}


def test_an_encoder_with_two_attacks_is_trained_once():
    found = plan(Row("1", NONE), Row("2", NONE, {"loss.mu1": 0.1}))
    assert [part.mode for part in found.parts] == ["recognizer", "protect", "attack", "attack"]
    assert found.encoders["1"] is found.encoders["2"]
    assert found.encoders["1"].rows == ["1", "2"]
    assert found.attacks["1"] is not found.attacks["2"]
    for attack in found.attacks.values():
        assert attack.config.encoder == (str(found.encoders["1"].path / "encoder"),)
        assert attack.encoder_run is found.encoders["1"]


def test_rows_with_the_same_runs_share_them():
    found = plan(Row("1", NONE), Row("2", dict(NONE)))
    assert len(found.parts) == 3
    assert all(part.rows == ["1", "2"] for part in found.parts)


def test_a_row_changes_its_own_runs_only():
    found = plan(Row("1", NONE), Row("2", DEFENCE, {"loss.mu1": 0.1}))
    assert found.encoders["1"].config.loss.lambda1 == 0.0
    assert found.encoders["2"].config.loss.lambda1 == 1.0
    assert found.attacks["1"].config.loss.mu1 == 0.0
    assert found.attacks["2"].config.loss.mu1 == 0.1
    assert not found.encoders["1"].config.baseline


def test_an_encoder_does_not_depend_on_settings_of_attacks():
    def change(config):
        config = copy.deepcopy(config)
        config.attack, config.feature_map = Attack(patience=9), FeatureMap(hidden=3)
        config.recognizer = Recognizer(path="c.onnx")
        config.loss.mu1, config.perceptual.weights = 0.5, "g.h5"
        return config

    # Without a defence there is no simulated attacker, so that mu1 has no effect.
    one, other = plan(Row("1", NONE)), plan(Row("1", NONE), override=change)
    assert one.encoders["1"].path == other.encoders["1"].path
    assert one.encoders["1"].config == other.encoders["1"].config
    assert one.attacks["1"].path != other.attacks["1"].path
    one, other = plan(Row("1", DEFENCE)), plan(Row("1", DEFENCE), override=change)
    assert one.encoders["1"].path != other.encoders["1"].path


def test_a_named_recognizer_is_not_trained():
    def name(config):
        config = copy.deepcopy(config)
        config.recognizer.path = "c.onnx"
        return config

    found = plan(Row("1"), override=name)
    assert [part.mode for part in found.parts] == ["protect", "attack"]
    assert found.attacks["1"].config.recognizer.path == "c.onnx"


def test_attacks_name_the_recognizer_that_the_plan_trains():
    found = plan(Row("1"))
    path = found.parts[0].path / "recognizer"
    assert found.attacks["1"].config.recognizer.path == str(path)


def test_a_row_need_not_be_attacked():
    found = plan(Row("1", attack=None))
    assert [part.mode for part in found.parts] == ["protect"]
    assert not found.attacks


def test_a_folder_is_named_after_its_changes():
    found = plan(Row("1", {"model.split": "conv3", "task.attributes": ("Male", "5_o_Clock/x")}))
    assert found.encoders["1"].path.name.startswith("attributes=Male,5_o_Clock_x-split=conv3-")
    assert found.encoders["1"].path.parent == Path("out/encoders")
    assert found.folder == Path("out/name")


def test_a_field_that_is_added_later_changes_no_folder(monkeypatch):
    before = plan(Row("1", DEFENCE)).encoders["1"].path
    known = experiment.flatten
    monkeypatch.setattr(experiment, "flatten", lambda config: known(config) | {"model.new": 1})
    assert plan(Row("1", DEFENCE)).encoders["1"].path == before


def test_a_finished_run_has_metrics(tmp_path):
    found = plan(Row("1"), root=tmp_path)
    (part, *_) = found.parts
    assert part.metrics is None
    part.path.mkdir(parents=True)
    (part.path / "metrics.json").write_text('{"mcc": 0.5}')
    assert part.metrics == {"mcc": 0.5}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss.lamda1": 1.0}, "row 7: there is no config field loss.lamda1; did you mean"),
        ({"loss": 1.0}, "row 7: there is no config field loss"),
        ({"loss.mu1": "much"}, "row 7: loss.mu1 is 'much'; it must be a finite number"),
        ({"model.split": "fc6"}, "row 7: model.split is 'fc6'"),
    ],
)
@pytest.mark.parametrize("mode", ["protect", "attack"])
def test_a_mistake_in_a_row_names_the_row(mode, changes, words):
    with pytest.raises(UserError, match=words):
        plan(Row("7", **{mode: changes}))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (None, "must return a tfadv.config.experiment.Experiment"),
        (make(), "needs rows"),
        (make(Row("1"), Row("1")), "two rows are called 1"),
        (make(Row("1"), claims=[Claim("", "mcc", [("1", "2")])]), "names row 2"),
        (make(Row("1"), plots=[Plot("", "", "mcc", {"": ["1", "3"]})]), "names row 3"),
        (make(Row("1"), latent=("Smiling",)), "two attributes, not 1"),
    ],
)
def test_an_inconsistent_experiment_is_an_error(made, words):
    with pytest.raises(UserError, match=f"--config=mine.py: .*{words}"):
        experiment.check(made, "mine.py")


def test_only_the_named_rows_are_run_and_the_page_shows_all():
    rows = [Row("1", NONE), Row("2", DEFENCE), Row("3", NONE, {"loss.mu1": 0.1})]
    found = experiment.plan(make(*rows), Path("out"), "name", copy.deepcopy, ["3", "2"])
    assert found.rows == ["2", "3"]
    assert list(found.encoders) == list(found.attacks) == ["1", "2", "3"]
    kept = [part.path for part in found.parts]
    assert found.encoders["1"].path in kept  # row 3 needs it
    assert found.attacks["1"].path not in kept
    assert len(kept) == 5
    with pytest.raises(UserError, match="--rows names 4; the rows are 1, 2, 3"):
        experiment.plan(make(*rows), Path("out"), "name", copy.deepcopy, ["4"])


@pytest.mark.parametrize("split", SPLITS)
def test_only_maps_are_pooled(split):
    change = {"model.split": split}
    found = plan(Row("1", change, {"feature_map.pooling": "average"}), Row("2", change))
    is_one = found.attacks["1"] is found.attacks["2"]
    assert is_one == (len(Encoder(18, split=split).feature_shape(64)) == 1)


@pytest.mark.parametrize("scale", ["paper", "small"])
@pytest.mark.parametrize("table", TABLES)
def test_the_papers_tables_are_complete(table, scale):
    made = config_file.call_file(str(ROOT / "configs" / f"{table}.py"), "get_experiment", scale)
    experiment.check(made, table)
    found = experiment.plan(made, Path("out"), table, lambda config: config)
    rows = {"table1": 10, "table2": 7, "table3": 12, "figure4": 4, "defences": 39}[table]
    encoders = {"table1": 5, "table2": 7, "table3": 12, "figure4": 4, "defences": 39}[table]
    assert len(made.rows) == rows
    assert len({part.path for part in found.encoders.values()}) == encoders
    for row in made.rows:
        assert set(row.paper) <= set(made.metrics)


def test_tables_share_encoders():
    paths, attacks = {}, {}
    for table in TABLES:
        made = config_file.call_file(
            str(ROOT / "configs" / f"{table}.py"), "get_experiment", "paper"
        )
        found = experiment.plan(made, Path("out"), table, copy.deepcopy)
        paths[table] = {name: part.path for name, part in found.encoders.items()}
        attacks[table] = {name: part.path for name, part in found.attacks.items()}
    assert paths["table1"]["1"] == paths["table3"]["fc without"]
    assert paths["table1"]["2"] == paths["table3"]["fc with"]
    assert paths["table1"]["2"] == paths["figure4"]["40 attributes with"]
    assert paths["table1"]["10"] == paths["figure4"]["Smiling with"]
    assert attacks["table1"]["1"] == attacks["table3"]["fc without"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (Row("7", {}, {"recognizer.path": "a.onnx"}), "row 7 changes recognizer.path, .* attack"),
        (Row("7", {}, {"loss.lambda1": 2.0}), "row 7 changes loss.lambda1, .* attack mode"),
        (Row("7", {"attack.patience": 2}), "row 7 changes attack.patience, .* protect mode"),
        (Row("7", {"scale": "small"}), "row 7 changes scale, .* protect mode"),
    ],
)
def test_a_change_without_effect_is_an_error(row, words):
    with pytest.raises(UserError, match=words):
        plan(row)


def test_a_comma_in_the_name_of_a_row_is_an_error():
    with pytest.raises(UserError, match="has a comma"):
        experiment.check(make(Row("1, 2")), "mine.py")


def test_an_override_of_a_field_that_rows_set_is_an_error():
    table = str(ROOT / "configs/table1.py")
    with pytest.raises(UserError, match=r"rows of .*table1\.py set loss\.mu1"):
        cli.parse(["run.py", "--mode=reproduce", f"--config={table}", "--config.loss.mu1=0.1"])


def test_1_and_1_0_are_one_config():
    found = plan(Row("1", {"loss.lambda1": 2}), Row("2", {"loss.lambda1": 2.0}))
    assert found.encoders["1"] is found.encoders["2"]


# Claims in the paper's text that its own tables contradict (docs/reproduce.md).
CONTRADICTED = {
    ("table1", "a GAN makes the attacker stronger", "2", "4"),
    ("table1", "more images for the encoder protect more", "8", "6"),
    ("table3", "with the defence, lower layers leak less", "conv4 with", "avgpool with"),
    ("table3", "the defence lowers the LDA score", "fc with", "fc without"),
}


def test_the_papers_numbers_agree_with_its_claims_except_the_known_ones():
    broken = set()
    for table in ("table1", "table2", "table3"):
        made = config_file.call_file(
            str(ROOT / "configs" / f"{table}.py"), "get_experiment", "paper"
        )
        paper = {row.name: row.paper for row in made.rows}
        for claim in made.claims:
            for less, more in claim.pairs:
                difference = paper[more][claim.metric] - paper[less][claim.metric]
                low = -float("inf") if claim.at_most < float("inf") else 1e-9
                if not low <= difference <= claim.at_most:
                    broken.add((table, claim.text, less, more))
    assert broken == CONTRADICTED


def test_feature_map_settings_matter_to_maximum_entropy_only():
    def change(config):
        config = copy.deepcopy(config)
        config.feature_map.hidden = 3
        return config

    rows = Row("1"), Row("2", {"loss.max_entropy": 1.0})
    found = plan(*rows, override=change)
    hidden = {name: part.config.feature_map.hidden for name, part in found.encoders.items()}
    assert hidden == {"1": FeatureMap().hidden, "2": 3}


def test_a_recognizer_is_measured_with_the_replicates_of_the_command_line():
    def change(config):
        config = copy.deepcopy(config)
        config.metrics.replicates = 77
        return config

    recognizer, protect, attack = plan(Row("1"), override=change).parts
    assert recognizer.config.metrics.replicates == attack.config.metrics.replicates == 77
    assert protect.config.metrics.replicates == Config().metrics.replicates
