import html.parser
import subprocess
import sys

import numpy as np
import pytest

from tfadv.figures import picture_grid
from tfadv.report import (
    MEANINGS,
    Card,
    Column,
    Figure,
    Section,
    Table,
    describe,
    format_table,
    write_page,
)
from tfadv.text import format_value

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>{{ 7 * 7 }}</style>&$'
DASH = "\N{EN DASH}"
CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Page(html.parser.HTMLParser):
    """A page as a browser would take it apart: its tags with their attributes, and its text."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def write(path, text="plain", value=0.25):
    """A page with `text` in every place that takes text."""
    column = Column(text, meaning=text, better="lower")
    table = Table(text, [Column(text), column], [[text, value]], note=text)
    figure = Figure(text, picture_grid([(text, np.zeros((1, 8, 8, 3), np.uint8))]), caption=text)
    write_page(
        path,
        title=text,
        lead=text,
        sections=[Section(text, [table, figure], text=text)],
        details={text: text},
        cards=[Card(column, value, note=text)],
    )
    return Page(path.read_text(encoding="utf-8"))


def test_hostile_text_stays_text(tmp_path):
    plain, hostile = write(tmp_path / "a.html"), write(tmp_path / "b.html", HOSTILE)
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    for (_, attributes), (_, expected) in zip(hostile.tags, plain.tags, strict=True):
        assert attributes.keys() == expected.keys()
    assert hostile.text.count(HOSTILE) == plain.text.count("plain")


def test_page_loads_nothing_from_outside(tmp_path):
    page = write(tmp_path / "a.html")
    source = (tmp_path / "a.html").read_text()
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
    assert not any({"href", "srcset", "action"} & attributes.keys() for _, attributes in page.tags)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    assert not any(word in source for word in ("http://", "https://", "url(", "@import"))


def test_page_carries_the_strict_content_security_policy(tmp_path):
    policies = [
        attributes["content"]
        for attributes in write(tmp_path / "a.html").all("meta")
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == [CSP]


def test_page_tells_what_a_number_means_and_which_way_is_better(tmp_path):
    table = Table("Numbers", [Column("Encoder"), MEANINGS["ssim"]], [["ours", 0.2]])
    write_page(tmp_path / "a.html", "T", "L", [Section("S", [table])], {})
    titles = [
        attributes.get("title", "")
        for attributes in Page((tmp_path / "a.html").read_text()).all("td")
    ]
    assert "Lower is more private." in titles[0]


def test_page_shows_what_was_run(tmp_path):
    details = {"train.batch": 64, "model.weights": None, "task.attributes": ("Bald", "Young")}
    write_page(tmp_path / "a.html", "T", "L", [], details)
    text = Page((tmp_path / "a.html").read_text()).text.split("What was run")[1]
    for cells in ("train.batch64", f"model.weights{DASH}", "task.attributesBald, Young"):
        assert cells in text


def test_page_is_written_though_a_file_name_is_not_utf8(tmp_path):
    assert "caf" in write(tmp_path / "a.html", "caf\udce9.jpg").text


@pytest.mark.parametrize(
    ("value", "spec", "text"),
    [
        (float("nan"), ".3f", DASH),
        (np.float32("nan"), ".3f", DASH),
        (None, ".3f", DASH),
        (float("inf"), ".2f", "∞"),
        (np.float32(0.5), ".3f", "0.500"),
        (-0.0001, "z.3f", "0.000"),
        (12345, ",.0f", "12,345"),
        (True, "", "True"),
        (["a", 2], "", "a, 2"),
        ("\x1b[31mred\u202e", "", "�[31mred�"),
    ],
)
def test_a_value_reads_as(value, spec, text):
    assert format_value(value, spec) == text


def test_missing_numbers_are_dashes_in_the_page(tmp_path):
    page = write(tmp_path / "a.html", value=float("nan"))
    assert page.text.count(DASH) == 2  # the card and the table
    assert "nan" not in page.text


def test_terminal_table_is_aligned_with_arrows():
    columns = [Column("Encoder"), MEANINGS["mcc"], MEANINGS["psnr"], MEANINGS["test_examples"]]
    rows = [["protected", 0.6123, 13.4, 2019], ["no defence", 0.64, float("nan"), None]]
    assert format_table(Table("Results", columns, rows, "A note.")).splitlines() == [
        "Results",
        "Encoder     Mean MCC ↑  PSNR (dB) ↓  Test pictures",
        "──────────────────────────────────────────────────",
        "protected        0.612        13.40          2,019",
        f"no defence       0.640            {DASH}              {DASH}",
        "A note.",
    ]


def test_terminal_table_strips_control_characters():
    table = Table("\x1b]0;t\x07", [Column("\r")], [["a\nb"]], "\x9b2J")
    assert not any(
        ord(c) < 32 or 127 <= ord(c) < 160 for c in format_table(table).replace("\n", "")
    )
    assert len(format_table(table).splitlines()) == 5


def test_every_metric_of_the_contract_has_a_meaning():
    # DESIGN, section 9.
    contract = {
        *("mcc", "mcc_task", "mcc_tuned", "face_similarity", "feature_similarity", "ssim", "psnr"),
        *("reid_rank1", "reid_rank5", "verification_auc", "verification_eer"),
        *("lda_within", "lda_between", "lda_score", "images_per_s", "test_examples"),
    }
    assert contract <= MEANINGS.keys()
    assert all(column.meaning for column in MEANINGS.values())


@pytest.mark.parametrize("column", MEANINGS.values(), ids=MEANINGS.keys())
def test_a_meaning_says_which_way_is_better(column):
    direction = f"{column.better.capitalize()} is " if column.better else ""
    assert direction in column.meaning


def test_attributes_and_unknown_metrics_are_described_too():
    assert "Smiling" in describe("mcc/Smiling").meaning
    assert describe("mcc/Smiling").better == "higher"
    assert describe("ours") == Column("ours")


def test_report_does_not_import_tensorflow():
    code = (
        "import sys, tfadv.report; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
