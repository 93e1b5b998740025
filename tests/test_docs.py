"""The documents are true: links lead somewhere, settings and files exist, commands parse."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
from absl import flags

from tfadv import cli
from tfadv.config import validation
from tfadv.config.fields import SETTINGS
from tfadv.reporting import reference

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob(".github/**/*.md")])
OWN = ("configs/lambda5.py", "configs/mine.py", "configs/NAME.py")  # the reader's
CONFIGS = sorted(ROOT.glob("configs/*.py"))
WRAPPED = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
WIDTH = 100


def name(path):
    return str(path.relative_to(ROOT))


def commands(text):
    """The commands of a text, without comments and the brackets of what may be left out.

    A backslash continues a line, and $P stands for the value of a line P="...".
    """
    text = re.sub(r"\\\n\s*", " ", text)
    for variable, value in reversed(re.findall(r'^([A-Z])="?([^"\n]*)"?$', text, re.M)):
        text = re.sub(rf"\${variable}\b", lambda match, value=value: value, text)
    found = re.findall(r"^(?:\s*|.*`|\s*(?:run|-)[: ]+)(python (?:-m )?[\w.]+ [^`\n]*)", text, re.M)
    return [shlex.split(re.sub(r"[`\[\]]", "", line), comments=True) for line in found]


@pytest.mark.parametrize("page", ["settings", "glossary"])
def test_pages_that_are_made_from_the_code_are_current(page):
    made = getattr(reference, f"{page}_page")()
    assert (ROOT / f"docs/{page}.md").read_text() == made, "run `make reference`"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


def anchors(text):
    """The anchors that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", [*PAGES, *CONFIGS], ids=name)
def test_settings_that_are_named_exist(page):
    for field in re.findall(r"--config\.([a-z_0-9]+(?:\.[a-z_0-9]+)*)", page.read_text()):
        assert field in SETTINGS, field


@pytest.mark.parametrize("page", [*PAGES, *CONFIGS], ids=name)
def test_files_of_ours_that_are_named_exist(page):
    pattern = (
        r"\b((?:configs|docs|tests|benchmarks|tfadv|data_prep)/[\w/.-]*\w\.(?:py|md|json|png))"
    )
    for path in re.findall(pattern, page.read_text()):
        if path not in OWN:
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", [*PAGES, *CONFIGS], ids=name)
def test_commands_parse(page, monkeypatch, tmp_path):
    for check in ("dataset", "files", "saved_model"):
        monkeypatch.setattr(validation, f"check_{check}", lambda *arguments: None)
    monkeypatch.setattr(cli, "check_recognizer", lambda path: None)
    monkeypatch.setattr(cli, "check_audit", lambda config: None)
    monkeypatch.setattr(cli, "choose_encoder", lambda config, path: None)
    for _, *arguments in commands(page.read_text()):
        if arguments[0] == "run.py":
            arguments = [own_config(argument, arguments, tmp_path) for argument in arguments]
            cli.parse(arguments)
        elif arguments[1].startswith("data_prep."):
            values = importlib.import_module(arguments[1]).define_flags()
            parse_flags(values, arguments[1:])
        elif arguments[0] == "-m":
            assert importlib.util.find_spec(arguments[1]), arguments[1]


def own_config(argument, arguments, folder):
    """A config that the reader is to write is a copy of one of ours here."""
    match = re.fullmatch(r"--config=(configs/\w+\.py)", argument)
    if not match or match[1] not in OWN:
        return argument.replace("--config=configs/", f"--config={ROOT}/configs/")
    ours = "table1" if {"reproduce", "--mode=reproduce"} & set(arguments) else "demo"
    copy = folder / Path(match[1]).name
    copy.write_text((ROOT / f"configs/{ours}.py").read_text())
    return f"--config={copy}"


def parse_flags(values: flags.FlagValues, arguments):
    assert values(arguments) == arguments[:1]


def test_commands_are_found():
    text = "a `python run.py -h` b\n\n  python -m data_prep.folder --name=x \\\n  --source=y # z\n"
    assert commands(text) == [
        ["python", "run.py", "-h"],
        ["python", "-m", "data_prep.folder", "--name=x", "--source=y"],
    ]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_page_has_a_placeholder(page):
    text = page.read_text()
    assert not re.findall(r"@@?[A-Z]\w*@@?|\b[A-Z]+_(?:OUTPUT|TABLE|SENTENCE|TEXT)\b", text)
    for code in re.findall(r"```python\n(.*?)```", text, re.S):
        assert not re.fullmatch(r"\w+\s*", code)


@pytest.mark.parametrize("page", WRAPPED, ids=name)
def test_prose_wraps_at_100_characters(page):
    assert not too_long(page.read_text())


def too_long(text):
    """The lines of prose over 100 characters, without code blocks, tables, and lone long words.

    A link's text may be broken, its address may not. A heading cannot be broken at all.
    """
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.S | re.M)
    lines = [line for line in prose.splitlines() if not line.lstrip().startswith(("|", "#"))]
    return [line for line in lines if len(line) > WIDTH and can_be_broken(line)]


def can_be_broken(line):
    words = re.sub(r"^\s*([-*+>]|\d+\.) +", "", line).split()
    return len(words) > 1


def test_long_lines_are_found():
    long = "word " * 20 + "words"
    link = f"[{'x' * 40}](https://example.org/{'y' * 60})"
    assert len(long) > WIDTH
    assert len(link) > WIDTH
    assert too_long(f"short\n{long}\n") == [long]
    assert too_long(f"- {long}\n") == [f"- {long}"]
    assert too_long(f"{link}\n- {link}\n| {long} |\n# {long}\n```\n{long}\n```\n") == []
