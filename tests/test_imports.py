"""Imports between rooms go one way (see BUILD.md)."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What each room may import, itself included.
CONFIG = {"config"}
TRAINING = CONFIG | {"training"}
DATA = TRAINING | {"data"}
MODELS = DATA | {"models"}
DEFENCES = MODELS | {"defences"}
EVALUATION = MODELS | {"evaluation"}
ATTACKS = EVALUATION | {"attacks"}
REPORTING = DEFENCES | ATTACKS | {"reporting"}
MODES = REPORTING | {"modes"}
CLI = MODES | {"cli"}
ALLOWED = {
    "config": CONFIG,
    "training": TRAINING,
    "data": DATA,
    "models": MODELS,
    "defences": DEFENCES,
    "evaluation": EVALUATION,
    "attacks": ATTACKS,
    "reporting": REPORTING,
    "modes": MODES,
    "cli": CLI,
}


def modules():
    """Module name -> file, of the whole package."""
    files = sorted((ROOT / "tfadv").rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return {name.removesuffix(".__init__"): file for name, file in zip(names, files, strict=True)}


def imports(source, known):
    """The known modules that a file's source imports, inside functions as well."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in full}
    return found & known


def graph():
    files = modules()
    known = set(files)
    return {name: imports(file.read_text(), known) - {name} for name, file in files.items()}


def room_of(module):
    return module.split(".")[1] if "." in module else "tfadv"


def wrong_way(edges):
    return [
        f"{module} imports {imported}"
        for module, found in edges.items()
        if room_of(module) in ALLOWED
        for imported in found
        if room_of(imported) not in ALLOWED[room_of(module)]
    ]


def test_every_module_is_in_a_room():
    assert {room_of(module) for module in modules()} == {*ALLOWED, "tfadv"}


def test_rooms_import_only_what_lies_below_them():
    assert wrong_way(graph()) == []


def test_no_modules_import_each_other_in_a_circle():
    graphlib.TopologicalSorter(graph()).prepare()


def test_the_files_of_rooms_that_make_them_packages_are_empty():
    folders = [
        file for file in (ROOT / "tfadv").rglob("__init__.py") if file.parent.name != "tfadv"
    ]
    assert [file for file in folders if file.read_text().strip()] == []


@pytest.mark.parametrize(
    "statement",
    [
        "import tfadv.modes.audit",
        "from tfadv.modes import audit",
        "from tfadv.modes.audit import run",
        "def f():\n    from tfadv.modes import audit",
    ],
)
def test_an_import_against_the_direction_is_seen_however_it_is_written(statement):
    found = imports(statement, {"tfadv.modes.audit"})
    assert wrong_way({"tfadv.attacks.suite": found}) == [
        "tfadv.attacks.suite imports tfadv.modes.audit"
    ]
