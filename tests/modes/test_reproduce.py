"""Experiments on synthetic faces, as a user runs them: run, interrupted, resumed, listed."""

import json
import signal

import keras
import numpy as np
import pytest

from tests import runs
from tfadv import cli
from tfadv.models import vgg
from tfadv.modes import attack, dry_run, protect, reproduce, tsne_maps
from tfadv.training import signals

CHANGES = (
    "config.train.steps = config.feature_map.steps = 20",
    # 64 numbers a feature: attacks whiten the features of each encoder again and again.
    "config.model.split = 'avgpool'",
)
EXPERIMENT = """
from tfadv.config.experiment import Claim, Experiment, Plot, Row

def get_experiment(scale):
    return Experiment(
        title="A small grid",
        about="Two encoders, three attacks.",
        base=get_config,
        rows=[
            Row("1", {"loss.lambda1": 0.0}, {}, "no defence", {"mcc": 0.6, "psnr": 13.7}),
            Row("2", {"loss.lambda1": 1.0}, {}, "defence", {"mcc": 0.5, "psnr": 13.4}),
            Row("3", {"loss.lambda1": 0.0}, {"attack.patience": 2}, "other attack"),
        ],
        metrics=("mcc", "psnr", "linkage_auc"),
        claims=[
            Claim("the defence hides pixels", "psnr", [("2", "1")]),
            Claim("it costs little", "mcc", [("2", "1")], at_most=0.9),
        ],
        plots=[
            Plot("Trade-off", "psnr", "mcc", {"": ["1", "2"]}),
            Plot("By row", "", "psnr", {"all": ["1", "2", "3"]}),
        ],
        latent=("Smiling", "Male"),
    )
"""


def write_experiment(root, folder):
    """Writes `root`/grid.py for the data sets of a folder; returns its path."""
    runs.write_config(root, folder, *CHANGES)
    grid = (root / "tiny.py").rename(root / "grid.py")
    grid.write_text(grid.read_text() + EXPERIMENT)
    return grid


def call(root, *flags):
    keras.config.set_dtype_policy("float32")
    flags = [
        "--mode=reproduce",
        f"--config={root / 'grid.py'}",
        f"--workdir={root / 'out'}",
        *flags,
    ]
    return cli.main(["run.py", *flags])


def written(root):
    """The time at which each run was finished."""
    return {p: p.stat().st_mtime_ns for p in root.glob("out/[ear]*/**/metrics.json")}


@pytest.fixture(scope="module")
def root(tiny_faces, tmp_path_factory):
    """A folder with a finished experiment, which was interrupted once."""
    root = tmp_path_factory.mktemp("reproduce")
    write_experiment(root, tiny_faces.dir)
    calls = []

    def spy(name, plain, ends_at=None):
        def spied(workdir):
            calls.append((name, workdir.path.name))
            if len(calls) == ends_at:
                raise signals.Interrupted(signal.SIGINT)
            plain(workdir)

        return spied

    modes = {"protect": protect.run, "attack": attack.run}
    for ends_at in (4, None):
        with pytest.MonkeyPatch.context() as patch:
            for name, plain in modes.items():
                patch.setitem(reproduce._MODES, name, spy(name, plain, ends_at))
            code = call(root)
        assert code == (130 if ends_at else 0)
        (root / f"calls_{code}.json").write_text(json.dumps(calls))
        if ends_at:
            found = json.loads((root / "out/grid/metrics.json").read_text())
            assert list(found) == ["1"]
            assert "Not finished: 2, 3." in (root / "out/grid/report.html").read_text()
    return root


@pytest.mark.slow
def test_what_is_finished_is_not_run_again(root):
    first = json.loads((root / "calls_130.json").read_text())
    both = json.loads((root / "calls_0.json").read_text())
    assert [name for name, _ in first] == ["protect", "attack", "protect", "attack"]
    # The interrupted attack, and the attack of row 3 on the encoder of row 1.
    assert both[len(first) :][0] == first[-1]
    assert [name for name, _ in both[len(first) :]] == ["attack", "attack"]
    before = written(root)
    assert call(root) == 0
    assert written(root) == before


@pytest.mark.slow
def test_the_page_shows_our_numbers_and_the_papers(root):
    page = (root / "out/grid/report.html").read_text()
    for words in (
        "Claims",
        "2 &lt; 1",
        "0.600",
        "Trade-off",
        "By row",
        "Maps of the features",
        "Smiling is not predicted",
        "silhouette",
        "loss.lambda1",
        "kernel",
    ):
        assert words in page
    assert "Not finished" not in page
    assert '<th scope="row">--config.scale' not in page
    assert page.count("data:image/png;base64") == 4
    assert (root / "out/grid/reconstructions.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_numbers_are_those_of_the_runs(root):
    found = json.loads((root / "out/grid/metrics.json").read_text())
    assert list(found) == ["1", "2", "3"]
    attacks = {path.parent for path in (root / "out/attacks").glob("*/*/metrics.json")}
    assert len(attacks) == 3
    kept = [json.loads((path / "metrics.json").read_text()) for path in attacks]
    assert sorted(each["psnr"] for each in found.values()) == sorted(each["psnr"] for each in kept)
    assert found["1"]["mcc"] == found["3"]["mcc"] != found["2"]["mcc"]
    for path in attacks:
        with np.load(path / "reconstructions.npz") as images:
            assert images["input"].shape == images["decoder"].shape == (3, 32, 32, 3)


@pytest.mark.slow
def test_what_leaks_is_what_the_strongest_attack_recovers(root):
    found = json.loads((root / "out/grid/metrics.json").read_text())
    page = (root / "out/grid/report.html").read_text()
    for metrics in found.values():
        by_attack = {
            "decoder": metrics["psnr"],
            **{n.removesuffix("/psnr"): v for n, v in metrics.items() if n.endswith("/psnr")},
        }
        references = {"mean_face", "chance", "real_image", "strongest", "hard_predictions"}
        attack = metrics["strongest/psnr_attack"]
        assert attack in by_attack.keys() - references
        assert metrics["strongest/psnr"] == by_attack[attack]
        # Twenty steps are too few for a decoder: closed forms recover more.
        assert attack != "decoder"
        assert metrics["strongest/psnr"] > metrics["psnr"]
    assert page.index("Leakage by the strongest attack") < page.index("Row by row")


@pytest.mark.slow
def test_a_listing_says_what_is_done_and_shared(root, capsys):
    assert call(root, "--dry_run") == 0
    shown = capsys.readouterr().out
    assert "row 2: defence" in shown
    assert "protect    done, shared with 3:" in shown
    assert "nothing is left to do" in shown
    assert call(root, "--dry_run", "--rows=2", "--config.train.steps=3600") == 0
    shown = capsys.readouterr().out
    assert "row 1" not in shown
    assert "3 runs are left: at most" in shown
    assert "GiB of checkpoints" in shown


@pytest.mark.slow
def test_some_rows_leave_the_page_whole(root):
    assert call(root, "--rows=2") == 0
    found = json.loads((root / "out/grid/metrics.json").read_text())
    assert list(found) == ["1", "2", "3"]
    assert "Not finished" not in (root / "out/grid/report.html").read_text()


@pytest.mark.slow
def test_an_encoder_that_gives_every_image_the_same_feature_has_no_map(root, monkeypatch):
    plain = tsne_maps.load_features

    def collapsed(part, attributes):
        features, *others = plain(part, attributes)
        is_undefended = not part.config.loss.lambda1
        return np.zeros_like(features) if is_undefended else features, *others

    monkeypatch.setattr(tsne_maps, "load_features", collapsed)
    assert call(root) == 0
    page = (root / "out/grid/report.html").read_text()
    assert "1 has no map: all features are the same." in page
    assert "2 has no map" not in page


def test_a_dry_run_needs_no_data_set_and_no_download(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(vgg, "_imagenet", lambda: pytest.fail("downloads VGG19"))
    grid = write_experiment(tmp_path, tmp_path / "empty")
    # Row 2 compares perceptual features, which needs VGG19.
    grid.write_text(
        grid.read_text().replace('{"loss.lambda1": 1.0}, {},', '{"loss.lambda2": 1.0}, {},')
    )
    assert call(tmp_path, "--dry_run", "--config.data.dataset=celeba/none") == 0
    shown = capsys.readouterr().out
    assert "6 runs are left: at most" in shown
    assert "the estimate assumes 1,000 people, and 40 attributes" in shown
    assert "Not prepared, so attribute names were not checked: celeba/none" in shown
    assert "there is no dataset celeba/none" in shown
    assert not (tmp_path / "empty").exists()
    assert not (tmp_path / "out").exists()


def test_a_duration_is_given_in_minutes_then_in_hours():
    assert dry_run.duration(61) == "2 minutes"
    assert dry_run.duration(9000) == "2.5 hours"


MISTAKES = {
    "another mode": (["--mode=protect", "--rows=1"], "--rows goes with --mode=reproduce"),
    "dry run of another mode": (["--mode=attack", "--dry_run"], "--dry_run goes with"),
    "no experiment": (["--mode=reproduce"], "get_experiment"),
    "no attribute to colour by": (
        ["--mode=reproduce", "--config={no_latent}"],
        "latent names Beard, which dataset synthetic/tiny lacks",
    ),
    "too large an M": (
        ["--mode=reproduce", "--config={grid}", "--config.feature_map.hidden=10000000"],
        "M would have 640,000,000 weights for the features [64] of row 1",
    ),
    "several machines": (
        ["--mode=reproduce", "--config={grid}", "--config.runtime.strategy=multi_worker"],
        "--mode=reproduce runs on one machine",
    ),
    "no such row": (["--mode=reproduce", "--config={grid}", "--rows=9"], "the rows are 1, 2, 3"),
    "wrong scale": (
        ["--mode=reproduce", "--config={grid}", "--config.scale=big"],
        "scale is 'big'",
    ),
    "no dataset": (
        ["--mode=reproduce", "--config={grid}", "--config.data.dataset=celeba/none"],
        "there is no dataset celeba/none",
    ),
    "no recognizer": (
        ["--mode=reproduce", "--config={grid}", "--config.recognizer.path=none.onnx"],
        "none.onnx",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_reported_before_any_run(name, tiny_faces, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = write_experiment(tmp_path, tiny_faces.dir)
    no_latent = tmp_path / "no_latent.py"
    no_latent.write_text(grid.read_text().replace("Smiling", "Beard"))
    arguments, words = MISTAKES[name]
    arguments = [each.format(grid=grid, no_latent=no_latent) for each in arguments]
    assert cli.main(["run.py", *arguments]) == 2
    assert words in capsys.readouterr().err
