import dataclasses
import html.parser
import subprocess
import sys

import numpy as np
import pytest

from tfadv.reporting.figures import image_grid
from tfadv.reporting.glossary import MEANINGS, Column, describe
from tfadv.reporting.page import (
    Card,
    Estimate,
    Figure,
    Label,
    Section,
    Table,
    format_table,
    write_page,
)
from tfadv.reporting.text import format_value

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>{{ 7 * 7 }}</style>&$'
DASH = "\N{EN DASH}"
CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Page(html.parser.HTMLParser):
    """A parsed page: its tags with their attributes, and its text."""

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
    """Writes and parses a page with `text` in every place that takes text."""
    column = Column(text, meaning=text, better="lower", group=text)
    rows = [[Label(text, text), value, Estimate(value, 0.1, 0.3)], [text, text, None]]
    table = Table(text, [Column(text), column, column], rows, note=text)
    figure = Figure(text, image_grid([(text, np.zeros((1, 8, 8, 3), np.uint8))]), caption=text)
    write_page(
        path,
        title=text,
        lead=text,
        sections=[Section(text, [table, figure], text=text, collapsed=i % 2) for i in range(5)],
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
    assert not any({"srcset", "action"} & attributes.keys() for _, attributes in page.tags)
    assert all(link["href"].startswith("#") for link in page.all("a"))
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    assert not any(word in source for word in ("http://", "https://", "url(", "@import"))


def test_page_has_the_strict_content_security_policy(tmp_path):
    policies = [
        attributes["content"]
        for attributes in write(tmp_path / "a.html").all("meta")
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == [CSP]


def render(path, table, cards=()):
    write_page(path / "a.html", "T", "L", [Section("S", [table])], {}, cards)
    return Page((path / "a.html").read_text(encoding="utf-8"))


def test_a_numbers_tooltip_has_its_name_meaning_and_interval(tmp_path):
    rank1 = dataclasses.replace(MEANINGS["reid_rank1"], group="ours")
    rows = [["ridge", Estimate(0.143, 0.121, 0.166), 0.5], [Label("mean face"), 0.002, None]]
    page = render(tmp_path, Table("Leakage", [Column("attack"), rank1, Column("odd")], rows))
    titles = [cell["title"] for cell in page.all("td")[:4]]
    tooltip = f"ours, Re-identification, rank 1: {MEANINGS['reid_rank1'].meaning}"
    assert titles == [
        f"ridge, {tooltip}\n95% interval: 12.1% to 16.6%.",
        "ridge, odd",
        f"mean face, {tooltip}",
        "mean face, odd",
    ]


def test_a_cards_tooltip_has_the_meaning_and_interval(tmp_path):
    card = Card(MEANINGS["ssim"], Estimate(0.4, 0.35, 0.45))
    page = render(tmp_path, Table("T", [Column("a")], []), [card])
    titles = [span["title"] for span in page.all("span") if span.get("class") == "value"]
    meaning = MEANINGS["ssim"].meaning
    assert titles == [f"SSIM: {meaning}\n95% interval: 0.350 to 0.450."]
    assert "0.400 (0.350 to 0.450)" in page.text
    assert page.text.count("In brackets: the 95% interval.") == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Estimate(0.143, 0.121, 0.166), "14.3% (12.1 to 16.6)"),
        (Estimate(np.float32(0.143), np.float32(0.121), np.float32(0.166)), "14.3% (12.1 to 16.6)"),
        (Estimate(0.143, None, None), "14.3%"),
        (Estimate(0.143, 0.1, float("nan")), "14.3%"),
        (Estimate(None, None, None), DASH),
        (0.143, "14.3%"),
    ],
)
def test_a_number_is_followed_by_its_interval_in_the_page(tmp_path, value, text):
    table = Table("T", [Column("a"), Column("b", format=".1%")], [["row", value]])
    cells = " ".join(render(tmp_path, table).text.split())
    assert f"row {text} " in cells
    assert ("In brackets: the 95% interval." in cells) == ("(" in text)


def test_meanings_of_rows_and_columns_are_listed_once_each_without_hovering(tmp_path):
    ours, theirs = (dataclasses.replace(MEANINGS["ssim"], group=g) for g in ("ours", "theirs"))
    rows = [[Label("mean face", "No feature at all."), 0.3, 0.3], ["ridge", 0.4, 0.5]]
    table = Table("T", [Column("attack"), ours, theirs], rows)
    write_page(tmp_path / "a.html", "T", "L", [Section("S", [table, table])], {})
    text = Page((tmp_path / "a.html").read_text(encoding="utf-8")).text
    assert text.count("No feature at all.") == 1
    assert text.count(MEANINGS["ssim"].meaning) == 1


def test_columns_of_a_group_share_a_heading(tmp_path):
    columns = [Column(n, group=g) for n, g in zip("abcde", ["", "", "x", "x", "y"], strict=True)]
    page = render(tmp_path, Table("T", columns, [["row", 1, 2, 3, 4]]))
    headings = [(th["colspan"], th["scope"]) for th in page.all("th") if "colspan" in th]
    assert headings == [("1", "colgroup"), ("2", "colgroup"), ("1", "colgroup")]
    # The heading of the row names spans both lines; then one heading per column.
    assert sum(th.get("scope") == "col" for th in page.all("th")) == 5
    assert page.all("th")[0]["rowspan"] == "2"


def test_long_material_is_collapsed_when_asked(tmp_path):
    sections = [Section("A", []), Section("B", [], "Long.", collapsed=True)]
    write_page(tmp_path / "a.html", "T", "L", sections, {})
    page = Page((tmp_path / "a.html").read_text())
    assert page.all("details") == [{"class": "fold"}, {"class": "fold"}]  # B, and what was run


def test_the_first_paragraph_is_the_verdict_and_commands_are_code(tmp_path):
    write_page(tmp_path / "a.html", "T", ["Bad <i>.", "Try `run.py x` now."], [], {})
    source = (tmp_path / "a.html").read_text()
    assert '<p class="verdict">Bad &lt;i&gt;.</p>' in source
    code = "<code><span>run.py</span> <span>x</span></code>"  # lines break between the spans
    assert f'<p class="lead">Try {code} now.</p>' in source


def test_date_and_data_set_stand_above_the_result_and_digests_below(tmp_path):
    details = {"date": "today", "dataset": "faces", "dataset SHA-256": "12ab", "mode": "attack"}
    write_page(tmp_path / "a.html", "T", "L", [], details)
    source = (tmp_path / "a.html").read_text()
    top, bottom = source.split('<p class="verdict">')
    assert '<p class="stamp">date today · dataset faces</p>' in top
    assert "12ab" not in top
    assert '<p class="stamp digests">dataset SHA-256 12ab</p>' in bottom


@pytest.mark.parametrize(
    ("value", "scale", "places"),
    [
        (15.0, [("low", 13.0), ("mid", 16.0), ("high", 17.0)], [0, 75, 100, 50]),
        (Estimate(15.0), [("low", 17.0), ("high", 13.0)], [0, 100, 50]),  # less is a larger leak
        (20.0, [("low", 13.0), ("high", 17.0)], [0, 100, 100]),  # beyond an end
        (15.0, [("low", 13.0), ("high", 13.0)], []),
        (15.0, [("low", 13.0)], []),
        (None, [("low", 13.0), ("high", 17.0)], []),
    ],
)
def test_a_card_shows_where_its_number_lies_between_two_ends(tmp_path, value, scale, places):
    card = Card(Column("PSNR", format=".1f"), value, scale=scale)
    assert [place for _, _, place in card.places] == places
    page = render(tmp_path, Table("T", [Column("a")], []), [card])
    widths = [span["style"] for span in page.all("span") if span.get("class") == "part"]
    assert widths == ([f"width: {places[-1]:.1f}%"] if places else [])
    marks = [span for span in page.all("span") if span.get("class") == "mark"]
    assert len(marks) == max(0, len(places) - 3)
    assert all(f"{name} {number:.1f}" in page.text for name, number in scale)


def test_the_bars_of_the_cards_are_explained_once(tmp_path):
    def card(*names):
        return Card(Column("PSNR"), 15.0, scale=[(name, float(i)) for i, name in enumerate(names)])

    cards = [
        card("chance", "hard predictions only", "unprotected"),
        card("mean face", "hard predictions only", "unprotected"),
        card("unprotected"),
    ]
    page = render(tmp_path, Table("T", [Column("a")], []), cards)
    legend = (
        "Each bar goes from chance or mean face (left end) to unprotected (right end). The tick is "
        "hard predictions only."
    )
    assert page.text.count(legend) == 1
    assert "Each bar" not in render(tmp_path, Table("T", [Column("a")], []), cards[2:]).text


@pytest.mark.parametrize(
    ("groups", "widths"),
    [
        ([""] * 7, [7]),
        ([""] * 9, [7, 2]),
        (["a"] * 4 + ["b"] * 5, [4, 5]),  # a group stays together
        (["a"] * 8 + ["b"], [7, 2]),  # unless it is too wide
    ],
)
def test_a_wide_table_is_folded_after_seven_columns(tmp_path, groups, widths):
    columns = [Column("row"), *(Column(f"c{i}", group=group) for i, group in enumerate(groups))]
    table = Table("T", columns, [["x", *range(len(groups))]], "A note.")
    parts = table.folded
    assert [len(part.columns) - 1 for part in parts] == widths
    assert all(part.rows[0][0] == "x" for part in parts)
    assert [value for part in parts for value in part.rows[0][1:]] == list(range(len(groups)))
    page = render(tmp_path, table)
    assert page.text.count("A note.") == 1
    assert ("More columns" in page.text) == (len(widths) > 1)


@pytest.mark.parametrize("count", [4, 5])
def test_contents_are_listed_of_more_than_four_sections(tmp_path, count):
    sections = [Section(f"Part {i}", []) for i in range(count)]
    write_page(tmp_path / "a.html", "T", "L", sections, {})
    page = Page((tmp_path / "a.html").read_text())
    targets = ["#" + section["id"] for section in page.all("section")]
    assert [link["href"] for link in page.all("a")] == (targets if count > 4 else [])


def test_page_shows_what_was_run(tmp_path):
    details = {"train.batch": 64, "model.weights": None, "task.attributes": ("Bald", "Young")}
    write_page(tmp_path / "a.html", "T", "L", [], details)
    text = Page((tmp_path / "a.html").read_text()).text.split("What was run")[1]
    for cells in ("train.batch64", f"model.weights{DASH}", "task.attributesBald, Young"):
        assert cells in text


def test_page_is_written_even_if_a_file_name_is_not_utf8(tmp_path):
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
    table = Table("T", [Column("a"), Column("b"), Column("c")], [["row", float("nan"), None]])
    page = render(tmp_path, table, [Card(Column("b"), float("nan"))])
    assert page.text.count(DASH) == 3  # the card and the table
    assert "nan" not in page.text


def test_terminal_table_is_aligned_with_arrows():
    columns = [Column("Encoder"), MEANINGS["mcc"], MEANINGS["psnr"], MEANINGS["test_examples"]]
    rows = [["protected", 0.6123, 13.4, 2019], ["no defence", 0.64, float("nan"), None]]
    assert format_table(Table("Results", columns, rows, "A note.")).splitlines() == [
        "Results",
        "Encoder     Mean MCC ↑  PSNR (dB) ↓  Test images",
        "────────────────────────────────────────────────",
        "protected        0.612        13.40        2,019",
        f"no defence       0.640            {DASH}            {DASH}",
        "A note.",
    ]


def test_terminal_table_shows_intervals_groups_and_names_aligned():
    rank1, psnr = (
        dataclasses.replace(MEANINGS[name], group=group)
        for name, group in (("reid_rank1", "ours"), ("psnr", "someone else's"))
    )
    rows = [
        [Label("ridge", "Closed form."), Estimate(0.143, 0.121, 0.166), 13.4],
        ["mean face", Estimate(0.002, 0.0, 0.01), 11.6],
        ["no attack", None, None],
    ]
    table = Table("Results", [Column("attack"), rank1, psnr], rows)
    assert format_table(table).splitlines() == [
        "Results",
        "           ─ ours ───────────  ─ someone else's",
        "           Re-identification,",
        "attack               rank 1 ↓        PSNR (dB) ↓",
        "────────────────────────────────────────────────",
        "ridge      14.3% [12.1, 16.6]              13.40",
        "mean face   0.2%   [0.0, 1.0]              11.60",
        f"no attack      {DASH}                               {DASH}",
        "In brackets: the 95% interval.",
    ]


def test_a_terminal_shows_as_many_columns_as_fit_in_100_characters():
    columns = [Column("attack"), *(Column(f"measure {i}") for i in range(9))]
    rows = [["ridge", *[Estimate(0.5, 0.4, 0.6)] * 9]]
    lines = format_table(Table("Results", columns, rows, "A note. " * 20)).splitlines()
    assert max(map(len, lines)) <= 100
    assert "measure 3" in lines[1]
    assert "measure 4" not in lines[1]
    assert "The report has 5 more columns." in lines


def test_terminal_table_strips_control_characters():
    columns = [Column("\r"), Column("x", group="\x1b[2J")]
    table = Table("\x1b]0;t\x07", columns, [[Label("a\nb", "\a"), "\x7f"]], "\x9b2J")
    assert not any(
        ord(c) < 32 or 127 <= ord(c) < 160 for c in format_table(table).replace("\n", "")
    )
    assert len(format_table(table).splitlines()) == 6


def test_every_metric_of_the_contract_has_a_meaning():
    # DESIGN, section 10, and further metrics of attacks.
    contract = {
        *("mcc", "mcc_task", "mcc_tuned", "face_similarity", "feature_similarity", "ssim", "psnr"),
        *("reid_rank1", "reid_rank5", "verification_auc", "verification_eer"),
        *("images_per_s", "test_examples", "attack_converged", "feature_map_converged"),
        *("face_similarity_inner", "mse", "held_out_loss", "attack_steps"),
        *("feature_reid_rank1", "feature_reid_rank5"),
        *("feature_verification_auc", "feature_verification_eer"),
        *("linkage_rank1", "linkage_rank5", "linkage_auc", "linkage_eer"),
        *("attribute_mcc", "attribute_auc", "attribute_accuracy", "attribute_majority_accuracy"),
    }
    assert contract <= MEANINGS.keys()
    assert all(column.meaning for column in MEANINGS.values())


@pytest.mark.parametrize("column", MEANINGS.values(), ids=MEANINGS.keys())
def test_a_meaning_says_which_way_is_better(column):
    direction = f"{column.better.capitalize()} is " if column.better else ""
    assert direction in column.meaning


@pytest.mark.parametrize(
    ("name", "better"),
    [
        *((f"{prefix}reid_rank{k}", "lower") for prefix in ("", "feature_") for k in (1, 5)),
        *((f"{prefix}_auc", "lower") for prefix in ("feature_verification", "linkage")),
        *((f"{prefix}_eer", "higher") for prefix in ("feature_verification", "linkage")),
        ("linkage_rank1", "lower"),
        ("lda_score", "lower"),
        ("face_similarity_inner", "lower"),
        ("mse", "higher"),
        ("attribute_mcc", "lower"),
        ("attribute_auc", "lower"),
    ],
)
def test_the_more_private_direction_is(name, better):
    assert describe(name).better == better
    assert f"{better.capitalize()} is more private." in describe(name).meaning


@pytest.mark.parametrize(
    "name", ["face_similarity", "face_similarity_inner", "reid_rank1", "verification_eer_centred"]
)
def test_a_metric_by_another_recognizer_names_it(name):
    plain, other = describe(name), describe(f"{name}/casia/v2")
    assert other == dataclasses.replace(
        plain,
        name=f"{plain.name} (casia/v2)",
        meaning=f"{plain.meaning} Measured by casia/v2, a recognizer that no attack learned from.",
    )


def test_a_centred_metric_says_what_is_subtracted():
    plain, centred = describe("reid_rank1"), describe("reid_rank1_centred")
    assert centred.meaning.startswith(plain.meaning)
    assert "mean embedding of all reconstructions" in centred.meaning
    assert dataclasses.replace(centred, meaning=plain.meaning) == dataclasses.replace(
        plain, name="Re-identification, rank 1, centred"
    )


def test_a_metric_of_another_attack_names_the_attack():
    expected = dataclasses.replace(MEANINGS["psnr"], name="PSNR (dB), kernel")
    assert describe("kernel/psnr") == expected


def test_attributes_and_unknown_metrics_are_described_too():
    assert "Smiling" in describe("mcc/Smiling").meaning
    assert describe("mcc/Smiling").better == "higher"
    inferred = describe("probe_mlp/attribute_auc/Smiling")
    assert inferred.name == "Attribute inference, AUC, Smiling, probe mlp"
    assert "of Smiling alone. 0.5 is chance level. Lower is more private." in inferred.meaning
    for name in ("ours", "ours/casia", "psnr/casia", "face_/casia", "psnr_centred", "_centred"):
        assert describe(name) == Column(name)


def test_page_does_not_import_tensorflow():
    code = (
        "import sys, tfadv.reporting.page; sys.exit(bool({'tensorflow', 'keras'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("columns", "hints"), [(3, 0), (4, 1)])
def test_a_wide_table_says_on_a_narrow_screen_that_it_scrolls(tmp_path, columns, hints):
    names = [Column(f"c{i}") for i in range(columns)]
    page = render(tmp_path, Table("T", names, [["x", *range(columns - 1)]]))
    assert page.text.count("Scroll the table sideways for more columns") == hints
