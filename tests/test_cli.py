import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep import synthetic
from tfadv import cli
from tfadv.config import config_file
from tfadv.config.errors import UserError
from tfadv.config.fields import flatten
from tfadv.config.schema import Audit, Config, Data, Train
from tfadv.modes import runner

ROOT = Path(__file__).parents[1]
GET_CONFIG = """
from tfadv.config.schema import Config, Data, Train

def get_config(mode):
    return Config(data=Data(size=128), train=Train(steps={"protect": 7, "attack": 9}[mode]))
"""


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Each test runs in its own empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_tensorflow(tmp_path, monkeypatch):
    """Importing TensorFlow or Keras fails in a process that the test starts."""
    for name in ("tensorflow", "keras", "tensorflow_datasets"):
        package = tmp_path / "stubs" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"raise SystemExit('{name} was imported')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stubs"))


def call(*arguments):
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def parse(*arguments):
    return cli.parse(["run.py", *arguments])


def make_encoder(folder):
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    return folder


# Mistake -> arguments, and words of the message.
MISTAKES = {
    "no mode": ([], ["--mode is missing", "protect, attack"]),
    "unknown mode": (["--mode=deceive"], ["--mode is deceive", "demo, protect, attack"]),
    "unknown mode first": (["celeba"], ["--mode is celeba", "demo, protect, attack"]),
    "misspelt mode": (["--mode=protekt"], ["--mode is protekt; did you mean protect?"]),
    "unknown help": (["--help=al"], ["--help is al; it must be --help or --help=all"]),
    "unknown config": (
        ["protect", "--config=recomended"],
        ["--config=recomended: there is no such file", "configs/ has only celeba, "],
    ),
    "mode without value": (["--mode"], ["--mode"]),
    "unknown flag": (["--mode=protect", "--baseline"], ["no flag --baseline", "--config.FIELD"]),
    "unknown flag with value": (["--mode=protect", "--steps=3"], ["no flag --steps;"]),
    "stray argument": (["--mode=protect", "celeba"], ["unexpected argument 'celeba'"]),
    "stray argument first": (["attack", "--mode=protect"], ["unexpected argument 'attack'"]),
    "stray value of a boolean": (
        ["--mode=protect", "--config.baseline", "false"],
        ["unexpected argument 'false'"],
    ),
    "unknown field": (
        ["--mode=protect", "--config.data.sise=64"],
        ["data.sise", "did you mean data.size?"],
    ),
    "unknown field apart": (
        ["--mode=protect", "--config.data.sise", "64"],
        ["data.sise", "did you mean data.size?"],
    ),
    "a group": (["--mode=protect", "--config.data=64"], ["no config field data"]),
    "no number": (
        ["--mode=protect", "--config.data.size=big"],
        ["data.size is 'big'; it must be a whole number"],
    ),
    "fraction": (
        ["--mode=protect", "--config.data.size=64.5"],
        ["data.size is '64.5'; it must be a whole number"],
    ),
    "settings for reproduce": (
        ["--mode=reproduce"],
        ["demo.py defines no get_experiment()", "configs/table1.py"],
    ),
    "an experiment for protect": (
        ["--mode=protect", f"--config={ROOT / 'configs/table1.py'}"],
        ["table1.py defines no get_config()", "--mode=reproduce"],
    ),
    "rows for protect": (["--mode=protect", "--rows=1"], ["--rows goes with --mode=reproduce"]),
    "no recognizer to hide from": (
        ["--mode=protect", "--config.loss.excess_identity=1"],
        ["loss.excess_identity", "--config.recognizer.path", "--mode=recognizer"],
    ),
    "no boolean": (
        ["--mode=protect", "--config.baseline=maybe"],
        ["baseline is 'maybe'; it must be True or False"],
    ),
    "no on a number": (
        ["--mode=protect", "--noconfig.data.size"],
        ["write --config.data.size=VALUE"],
    ),
    "field without value": (["--mode=protect", "--config.data.size"], ["config.data.size"]),
    "nan": (["--mode=protect", "--config.loss.lambda1=nan"], ["loss.lambda1", "nan"]),
    "inf": (["--mode=protect", "--config.loss.lambda1=inf"], ["loss.lambda1", "inf"]),
    "out of range": (["--mode=protect", "--config.train.batch=1"], ["train.batch is 1", "from 2"]),
    "choice": (["--mode=protect", "--config.model.split=fc6"], ["model.split is 'fc6'", "avgpool"]),
    "contradiction": (
        ["--mode=attack", "--config.black_box.low=2"],
        ["black_box.low is 2.0", "below black_box.high"],
    ),
    "no config file": (["--mode=protect", "--config=no.py"], ["--config=no.py", "no such file"]),
    "folder as config": (["--mode=protect", "--config=stubs"], ["--config=stubs", "no such file"]),
    "no weights": (
        ["--mode=protect", "--config.model.weights=no.npz"],
        ["model.weights is no.npz", "does not exist"],
    ),
    "no protect run": (
        ["--mode=attack"],
        ["runs/demo/protect/encoder", "run --mode=protect first", "--config.encoder=PATH"],
    ),
    "no encoder": (["--mode=attack", "--config.encoder=no"], ["encoder no does not exist"]),
    "no SavedModel": (
        ["--mode=attack", "--config.encoder=stubs"],
        ["encoder stubs is no SavedModel", "saved_model.pb"],
    ),
    "file as workdir": (
        ["--mode=protect", "--workdir=stubs/keras/__init__.py"],
        ["stubs/keras/__init__.py is a file"],
    ),
    "workdir in object storage": (
        ["--mode=protect", "--workdir=gs://bucket/run"],
        ["--workdir=gs://bucket/run", "local or mounted", "data.dir may be in object storage"],
    ),
}


@pytest.mark.parametrize(("arguments", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gets_one_line_and_code_2_without_tensorflow(no_tensorflow, arguments, words):
    done = call(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("run.py: ")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("\n")
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr


BROKEN_CONFIGS = {
    "syntax error": ("def get_config(mode)\n", ["SyntaxError", "line 1"]),
    "exception at import": ("import no_such_module", ["ModuleNotFoundError", "no_such_module"]),
    "no get_config": ("config = 3", ["get_config"]),
    "get_config without mode": ("def get_config(): pass", ["TypeError", "get_config()"]),
    "silent exception": ("def get_config(mode): assert False", ["AssertionError"]),
    "long exception": ("def get_config(mode): raise ValueError('one\\ntwo')", ["one two"]),
    "for the terminal": (
        "def get_config(mode): raise ValueError('one\\x1b[2Jtwo')",
        ["one [2Jtwo"],
    ),
    "missing file": ("def get_config(mode): return open('none.csv')", ["none.csv"]),
    "nothing returned": (
        "def get_config(mode): pass",
        ["must return a tfadv.config.schema.Config"],
    ),
    "a dict returned": (
        "def get_config(mode): return {}",
        ["must return a tfadv.config.schema.Config"],
    ),
    "misspelt argument": (
        "from tfadv.config.schema import *\ndef get_config(mode): return Config(baselin=True)",
        ["TypeError", "'baselin'"],
    ),
    "misspelt argument of a group": (
        "from tfadv.config.schema import *\n"
        "def get_config(mode): return Config(data=Data(sise=64))",
        ["TypeError", "'sise'", "did you mean data.size?"],
    ),
    "misspelt attribute": (
        "from tfadv.config.schema import *\n"
        "def get_config(mode):\n    c = Config()\n    c.train.step = 3\n    return c",
        ["AttributeError", "'Train'", "'step'", "did you mean train.steps?"],
    ),
    "wrong type": (
        "from tfadv.config.schema import *\ndef get_config(mode): return Config(data=None)",
        ["data is None", "tfadv.config.schema.Data"],
    ),
    "wrong value": (
        "from tfadv.config.schema import *\n"
        "def get_config(mode): return Config(loss=Loss(lambda1=-1))",
        ["loss.lambda1 is -1"],
    ),
}


@pytest.mark.parametrize(("text", "words"), BROKEN_CONFIGS.values(), ids=BROKEN_CONFIGS)
def test_a_broken_config_file_is_named_in_one_line(no_tensorflow, text, words):
    Path("broken.py").write_text(text)
    done = call("--mode=protect", "--config=broken.py", "--config.data.size=96")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


def test_another_config_in_the_same_workdir_is_refused(no_tensorflow):
    parse("--mode=protect", "--workdir=here").begin()
    Path("here/checkpoints").mkdir()
    done = call("--mode=protect", "--workdir=here", "--config.data.size=96")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "data.size (was 64, is 96)" in done.stderr


def test_a_mistake_leaves_no_folder_behind(no_tensorflow, empty_folder):
    call("--mode=protect", "--config.train.batch=1")
    assert {path.name for path in empty_folder.iterdir()} == {"stubs"}


def test_a_missing_dataset_is_reported_before_tensorflow_is_imported(no_tensorflow):
    done = call("--mode=protect", "--config.data.dataset=celeba/paper")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "there is no dataset celeba/paper in data.dir=data, which has none" in done.stderr


def test_a_missing_dataset_of_other_shares_is_reported_with_the_shares(no_tensorflow):
    done = call("--mode=protect", f"--config={ROOT / 'configs/celeba_small.py'}")
    assert "no dataset celeba/identity_70_20_10" in done.stderr
    assert "python -m data_prep.celeba --shares=0.7,0.2,0.1, data_prep.folder" in done.stderr


def test_a_missing_extra_dataset_is_reported_before_tensorflow_is_imported(no_tensorflow):
    done = call("--mode=protect", "--config.data.extra=synthetic/tiny,lfw")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "there is no dataset lfw in data.dir=data, which has none" in done.stderr


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_needs_no_tensorflow(no_tensorflow, flag):
    done = call(flag)
    assert done.returncode == 0
    assert done.stderr == ""
    for words in ("    protect  ", "--workdir=DIR", "--config.train.steps=400", "demo.py in mode"):
        assert words in done.stdout
    assert "train.rollbacks" not in done.stdout
    assert len(done.stdout.splitlines()) <= 90


def test_the_whole_help_has_every_setting_with_the_values_of_a_config(no_tensorflow):
    done = call("attack", "--help=all", "--config=celeba")
    assert done.stdout.startswith("All settings, with the values of celeba.py in mode attack:")
    celeba = config_file.read_config(str(ROOT / "configs/celeba.py"), "attack")
    for name in flatten(celeba):
        assert f"--config.{name}=" in done.stdout
    assert f"--config.train.steps={celeba.train.steps} " in done.stdout


def test_the_mode_may_stand_first():
    assert parse("protect", "--workdir=here").mode == "protect"


def test_a_config_of_ours_is_known_by_its_name():
    named = parse("protect", "--config=celeba_small", "--config.data.dataset=synthetic")
    assert named.path == Path("runs/celeba_small/protect")
    celeba_small = config_file.read_config(str(ROOT / "configs/celeba_small.py"), "protect")
    assert named.config.model == celeba_small.model


def test_the_demo_is_three_runs_that_their_modes_would_make():
    demo = parse("demo")
    assert [part.mode for part in demo.parts] == ["recognizer", "protect", "attack"]
    make_encoder(Path("runs/demo/protect/encoder"))
    Path("runs/demo/recognizer/recognizer").mkdir(parents=True)
    for part in demo.parts[:2]:
        single = parse(part.mode)
        assert (part.path, part.config) == (single.path, single.config)
    assert demo.parts[2].config.encoder == ("runs/demo/protect/encoder",)
    assert demo.parts[2].config.recognizer.path == "runs/demo/recognizer/recognizer"


def test_a_demo_with_a_named_recognizer_trains_none(tmp_path):
    (tmp_path / "c.t7").touch()
    demo = parse("demo", "--config.recognizer.path=c.t7", "--workdir=here")
    assert [(part.mode, part.path) for part in demo.parts] == [
        ("protect", Path("here/protect")),
        ("attack", Path("here/attack")),
    ]


def test_a_demo_trains_the_papers_defence():
    protect = parse("demo").parts[1].config
    assert protect.loss.lambda1 == 1
    assert protect.baseline
    assert protect.bottleneck == Config().bottleneck


def test_a_reader_who_has_seen_enough_is_no_error(no_tensorflow):
    run, python = ROOT / "run.py", sys.executable
    command = f"{python} {run} --help=all | {python} -c 'input()'; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.returncode in (0, 141)  # 0: all of it fitted into the pipe


def test_a_finished_run_says_so_and_has_exit_code_0(no_tensorflow):
    finished = parse("--mode=protect", "--workdir=here")
    finished.begin()
    finished.finish({"mcc": 0.5})
    done = call("--mode=protect", "--workdir=here")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "here is finished: see here/report.html\n"


def test_without_flags_the_config_is_the_demo():
    run = parse("--mode=protect")
    assert run.mode == "protect"
    assert run.path == Path("runs/demo/protect")
    assert run.config == config_file.read_config(str(ROOT / "configs/demo.py"), "protect")


def test_the_default_workdir_is_named_after_config_and_mode():
    Path("mine.py").write_text(GET_CONFIG)
    assert parse("--mode=protect", "--config=mine.py").path == Path("runs/mine/protect")


def test_a_config_file_gets_the_mode():
    Path("mine.py").write_text(GET_CONFIG)
    make_encoder(Path("enc"))
    assert parse("--mode=protect", "--config=mine.py").config.train.steps == 7
    attack = parse("--mode=attack", "--config=mine.py", "--config.encoder=enc")
    assert attack.config.train.steps == 9


def test_an_attack_uses_the_encoder_of_the_protect_run_of_its_config():
    make_encoder(Path("runs/demo/protect/encoder"))
    run = parse("--mode=attack")
    assert run.path == Path("runs/demo/attack")
    assert run.config.encoder == ("runs/demo/protect/encoder",)


def test_an_attack_in_a_workdir_uses_the_protect_run_in_the_same_folder():
    make_encoder(Path("out/protect/encoder"))
    assert parse("--mode=attack", "--workdir=out/attack").config.encoder == ("out/protect/encoder",)


OVERRIDES = {
    "with an equals sign": (["--config.data.size=96"], {"data.size": 96}),
    "apart": (["--config.data.size", "96"], {"data.size": 96}),
    "one dash": (["-config.data.size=96"], {"data.size": 96}),
    "negative number apart": (["--config.black_box.low", "-3"], {"black_box.low": -3.0}),
    "scientific": (["--config.train.learning_rate=3e-4"], {"train.learning_rate": 3e-4}),
    "whole number for a float": (["--config.loss.lambda1=2"], {"loss.lambda1": 2.0}),
    "text": (["--config.data.dataset=synthetic/tiny"], {"data.dataset": "synthetic/tiny"}),
    "text with =": (["--config.data.dir=/a=b c"], {"data.dir": "/a=b c"}),
    "boolean": (["--config.runtime.deterministic"], {"runtime.deterministic": True}),
    "boolean with value": (["--config.report.pictures=false"], {"report.pictures": False}),
    "boolean off": (["--noconfig.baseline"], {"baseline": False}),
    "attributes": (
        ["--config.task.attributes=Smiling,Male"],
        {"task.attributes": ("Smiling", "Male")},
    ),
    "attribute like a number": (
        ["--config.task.attributes=5_o_Clock_Shadow, Male"],
        {"task.attributes": ("5_o_Clock_Shadow", "Male")},
    ),
    "no attributes": (["--config.task.attributes="], {"task.attributes": ()}),
    "the last one counts": (
        ["--config.train.steps=3", "--config.train.steps=4"],
        {"train.steps": 4},
    ),
    "extra datasets": (
        ["--config.data.dataset=synthetic/tiny", "--config.data.extra=synthetic,"],
        {"data.dataset": "synthetic/tiny", "data.extra": ("synthetic",)},
    ),
    "several": (
        ["--config.train.steps", "3", "--noconfig.baseline", "--config.model.depth=34"],
        {"train.steps": 3, "baseline": False, "model.depth": 34},
    ),
}


@pytest.mark.parametrize(("arguments", "expected"), OVERRIDES.values(), ids=OVERRIDES)
def test_an_override_changes_only_its_field(arguments, expected):
    plain = flatten(parse("--mode=protect", "--workdir=here").config)
    # Flags that follow a value are still read.
    run = parse("--mode=protect", *arguments, "--workdir=here")
    assert flatten(run.config) == plain | expected
    assert run.path == Path("here")


def test_encoders_with_slashes_and_commas_are_a_list_of_paths(tmp_path):
    first, second = (str(make_encoder(tmp_path / name)) for name in ("a b", "1e5"))
    run = parse("--mode=attack", f"--config.encoder={first},{second}")
    assert run.config.encoder == (first, second)
    assert parse("--mode=attack", "--config.encoder=1e5").config.encoder == ("1e5",)


def test_an_override_wins_over_the_file_and_the_file_over_the_default():
    Path("mine.py").write_text(GET_CONFIG)
    config = parse("--mode=protect", "--config=mine.py", "--config.train.steps=11").config
    assert config == Config(data=Data(size=128), train=Train(steps=11))


def test_a_config_file_may_hold_a_colon_in_its_path():
    Path("a:b.py").write_text(GET_CONFIG)
    assert parse("--mode=protect", "--config=a:b.py").config.data.size == 128


def make_recognizer(folder):
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    (folder / "recognizer.json").write_text('{"size": 64, "inner": "avgpool"}')
    return folder


def test_an_attack_uses_the_recognizer_trained_in_the_same_folder(tmp_path):
    make_encoder(tmp_path / "runs/x/protect/encoder")
    recognizer = make_recognizer(tmp_path / "runs/x/recognizer/recognizer")
    config = parse("--mode=attack", f"--workdir={tmp_path / 'runs/x/attack'}").config
    assert config.recognizer.path == str(recognizer)


def test_a_named_recognizer_wins_over_the_trained_one(tmp_path):
    make_encoder(tmp_path / "runs/x/protect/encoder")
    make_recognizer(tmp_path / "runs/x/recognizer/recognizer")
    mine = make_recognizer(tmp_path / "mine")
    flags = ["--mode=attack", f"--workdir={tmp_path / 'runs/x/attack'}"]
    assert parse(*flags, f"--config.recognizer.path={mine}").config.recognizer.path == str(mine)


def test_an_attack_needs_no_recognizer(tmp_path):
    make_encoder(tmp_path / "runs/x/protect/encoder")
    assert (
        parse("--mode=attack", f"--workdir={tmp_path / 'runs/x/attack'}").config.recognizer.path
        == ""
    )


@pytest.mark.parametrize("field", ["path", "others"])
def test_a_missing_recognizer_is_reported_before_tensorflow_is_imported(no_tensorflow, field):
    make_encoder(Path("runs/x/protect/encoder"))
    flags = ["--mode=attack", "--workdir=runs/x/attack", f"--config.recognizer.{field}=nowhere.t7"]
    result = call(*flags)
    assert (result.returncode, result.stdout) == (2, "")
    assert "recognizer nowhere.t7 does not exist" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--mode=protect", "--config.loss.lambda2=1"),
        ("--mode=protect", "--config.loss.mu2=1", "--config.loss.lambda1=1"),
        ("--mode=attack", "--config.loss.mu2=1"),
    ],
)
def test_missing_vgg19_weights_are_reported_if_a_loss_needs_them(arguments):
    make_encoder(Path("runs/demo/protect/encoder"))
    with pytest.raises(UserError, match=r"perceptual.weights is no\.h5, which does not exist"):
        parse(*arguments, "--config.perceptual.weights=no.h5")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--mode=protect",),
        ("--mode=protect", "--config.loss.mu2=1", "--config.loss.lambda1=0"),
        ("--mode=attack", "--config.loss.lambda2=1"),
        ("--mode=recognizer", "--config.loss.mu2=1"),
    ],
)
def test_vgg19_weights_are_not_checked_if_no_loss_needs_them(arguments):
    make_encoder(Path("runs/demo/protect/encoder"))
    assert parse(*arguments, "--config.perceptual.weights=no.h5") is not None


def test_vgg19_weights_of_another_kind_are_refused():
    with pytest.raises(UserError, match=r"perceptual.weights is vgg.pkl; it must be imagenet or"):
        parse("--mode=protect", "--config.loss.lambda2=1", "--config.perceptual.weights=vgg.pkl")


def test_an_attack_does_not_check_initial_weights():
    make_encoder(Path("enc"))
    run = parse("--mode=attack", "--config.encoder=enc", "--config.model.weights=no.npz")
    assert run.config.model.weights == "no.npz"


def test_recognizers_that_only_measure_need_a_first_one(tmp_path):
    make_encoder(tmp_path / "runs/x/protect/encoder")
    flags = ["--mode=attack", f"--workdir={tmp_path / 'runs/x/attack'}"]
    with pytest.raises(UserError, match=r"name that one with --config\.recognizer\.path"):
        parse(*flags, f"--config.recognizer.others={make_recognizer(tmp_path / 'mine')}")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("block1_conv1,block9_conv1", "names block9_conv1; it must be one of block1_conv1, "),
        ("block1_conv1,block1_conv1", "names block1_conv1 twice"),
    ],
)
def test_layers_of_vgg19_are_known_and_named_once(layers, message):
    with pytest.raises(UserError, match=message):
        parse("--mode=protect", f"--config.perceptual.layers={layers}")


def test_the_synthetic_faces_that_a_config_names_are_prepared(monkeypatch):
    prepared = []
    monkeypatch.setattr(synthetic, "prepare", lambda folder, name: prepared.append((folder, name)))
    data = Data(dir="faces", dataset="synthetic", extra=("synthetic/mine", "lfw"))
    cli.prepare_synthetic(Config(data=data, audit=Audit(domain="synthetic/tiny:1.0.0")))
    assert prepared == [("faces", "default"), ("faces", "tiny")]


def test_a_dry_run_prepares_nothing_and_needs_no_data_set_or_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    calls = []
    monkeypatch.setattr(cli, "prepare_synthetic", lambda config: calls.append(config.data))
    monkeypatch.setattr(runner, "run", lambda plan: calls.append(list(plan.missing)))
    flags = ["--mode=reproduce", f"--config={ROOT / 'configs/table1.py'}"]
    flags.append("--config.recognizer.path=none.onnx")
    assert cli.main(["run.py", *flags]) == 2
    assert calls == []
    assert cli.main(["run.py", *flags, "--dry_run"]) == 0
    (missing,) = calls
    assert any("there is no dataset celeba" in each for each in missing)
    assert any("none.onnx" in each for each in missing)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_one_line_and_the_shell_s_exit_code(
    monkeypatch, tmp_path, capsys, number, code
):
    monkeypatch.setattr(cli, "run", lambda command: os.kill(os.getpid(), number))
    assert cli.main(["run.py", "--mode=protect", f"--workdir={tmp_path / 'run'}"]) == code
    message = capsys.readouterr().err.strip()
    assert message == "run.py: interrupted; the same command resumes"
