"""Writes docs/settings.md and docs/glossary.md from the schema and the glossary of the reports.

python -m tfadv.reporting.reference
"""

import textwrap
from pathlib import Path

from tfadv.config.fields import GROUPS, SETTINGS, shown
from tfadv.evaluation.leakage_measures import MEASURES
from tfadv.reporting.glossary import MEANINGS, TERMS, describe

DOCS = Path(__file__).parents[2] / "docs"

_SETTINGS = """\
# Settings

Every setting of a run. This page is made from the code by `make reference`.

Set one on the command line, as in `--config.data.size=96`, or in a file of `configs/`. The values
shown are those of the code. A config file has its own; without `--config` that is
`configs/demo.py`. `python run.py protect --help=all --config=celeba` shows those of a config. A
defence does nothing at its off-value.
"""
_GLOSSARY = """\
# Glossary

Every term and every number of the reports. This page is made by `make reference` from the texts
that the reports show when you point at a number.
"""


def settings_page() -> str:
    """Returns the page of all settings, in Markdown."""
    lines, group = [_SETTINGS], None
    for name, setting in SETTINGS.items():
        if (now := name.rpartition(".")[0]) != group:
            group = now
            about = GROUPS[group].__doc__ if group else "What to run."
            lines += [f"\n## {group or 'run'}\n", f"{about}\n"]
            lines += [_row("setting", "value", "meaning", "may be"), _row(*["---"] * 4)]
        value = f"`{shown(setting.default)}`" if shown(setting.default) else ""
        lines.append(_row(f"`{name}`", value, setting.meaning, setting.rules()))
    return "\n".join(lines) + "\n"


def glossary_page() -> str:
    """Returns the page of all terms and numbers, in Markdown."""
    lines = [_GLOSSARY, "## Terms\n"]
    for term, meaning in TERMS.items():
        lines += [_wrapped(f"**{term}**: {meaning}"), ""]
    lines += ["## Numbers\n", "In brackets: the name in `metrics.json`.", ""]
    for name, column in MEANINGS.items():
        lines += [_wrapped(f"**{column.name}** (`{name}`): {column.meaning}"), ""]
    lines += [
        "## Measures of an audit\n",
        "In brackets: the name in `audit.json` and in limits.",
        "",
    ]
    for name, measure in MEASURES.items():
        meaning = describe(measure.metric).meaning
        lines += [_wrapped(f"**{measure.title}** (`{name}`): {meaning}"), ""]
    return "\n".join(lines).rstrip() + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    (DOCS / "settings.md").write_text(settings_page())
    (DOCS / "glossary.md").write_text(glossary_page())
