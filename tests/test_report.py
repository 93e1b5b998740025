import html.parser
import subprocess
import sys

import cv2
import numpy as np
import pytest

from tfadv.report import (
    MEANINGS,
    Card,
    Column,
    Figure,
    Section,
    Table,
    bar_figure,
    curve_figure,
    describe,
    format_table,
    format_value,
    picture_grid,
    write_page,
)

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


def decode(png):
    """RGBA, uint8 [height, width, 4]."""
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), -1), cv2.COLOR_BGRA2RGBA)


def coloured(png, colour):
    """Which pixels have this colour."""
    return (decode(png) == [*colour, 255]).all(axis=-1)


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


@pytest.mark.parametrize(("size", "scale"), [(64, 2), (32, 4), (224, 1)])
def test_grid_shows_the_exact_pixels_enlarged_by_a_whole_factor(size, scale):
    random = np.random.default_rng(0)
    rows = [
        (name, random.integers(0, 256, (3, size, size, 3), dtype=np.uint8))
        for name in ("in", "out")
    ]
    image = decode(picture_grid(rows))
    tile = size * scale
    assert image.shape[1] == 3 * tile + 2 * 6
    assert image.shape[0] == 2 * (tile + 36)
    for row, (_, pictures) in enumerate(rows):
        for i, picture in enumerate(pictures):
            top, left = 36 + row * (tile + 36), i * (tile + 6)
            shown = image[top : top + tile, left : left + tile]
            np.testing.assert_array_equal(shown[::scale, ::scale, :3], picture)
            np.testing.assert_array_equal(
                shown[scale - 1 :: scale, scale - 1 :: scale, :3], picture
            )
            assert (shown[..., 3] == 255).all()


def test_grid_writes_its_label_above_each_row_and_nothing_elsewhere():
    black = np.zeros((2, 32, 32, 3), np.uint8)
    alpha = decode(picture_grid([("Input", black), ("", black)]))[..., 3]
    assert alpha[:36].any()
    assert not alpha[36 + 128 : 2 * 36 + 128].any()  # the second label is empty
    assert not alpha[36 : 36 + 128, 128:134].any()  # the gap


def test_grid_is_also_written_to_a_file(tmp_path):
    png = picture_grid([("a", np.zeros((1, 8, 8, 3), np.uint8))], tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes() == png


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [("a", np.zeros((0, 8, 8, 3), np.uint8))],
        [("a", np.zeros((1, 8, 8, 3), np.float32))],
        [("a", np.zeros((1, 8, 8, 3), np.uint8)), ("b", np.zeros((2, 8, 8, 3), np.uint8))],
    ],
    ids=["no rows", "no pictures", "floats", "unequal rows"],
)
def test_grid_refuses(rows):
    with pytest.raises(ValueError, match="a grid needs rows of one shape"):
        picture_grid(rows)


def test_bars_are_as_long_as_their_values_and_the_highest_is_on_top():
    bars = coloured(bar_figure({"ours": {"low": 0.25, "high": 1.0}}, "MCC"), (0x3B, 0x8E, 0xA5))
    lengths = bars.sum(axis=1)
    lengths = lengths[lengths > 0]
    assert lengths[0] / lengths[-1] == pytest.approx(4, rel=0.02)


def test_bars_of_two_series_stand_side_by_side():
    png = bar_figure({"ours": {"a": 0.5, "b": 0.1}, "theirs": {"a": 1.0}}, "MCC")
    ours, theirs = (coloured(png, c)[60:, :] for c in ((0x3B, 0x8E, 0xA5), (0xD9, 0x79, 0x3D)))
    longest = [bars.sum(axis=1).max() for bars in (ours, theirs)]
    assert longest[1] / longest[0] == pytest.approx(2, rel=0.02)


def test_a_level_curve_is_a_level_line_with_a_gap_where_it_is_not_finite():
    y = [0.5, 0.5, 0.5, np.nan, 0.5, 0.5]
    line = coloured(curve_figure({"loss": (range(6), y)}, "steps", "loss"), (0x3B, 0x8E, 0xA5))
    rows, columns = np.flatnonzero(line.any(axis=1)), np.flatnonzero(line.any(axis=0))
    assert np.ptp(rows) < 10
    # Steps 0 to 2 and 4 to 5 are drawn, 2 to 4 are missing: two fifths of the width.
    assert np.diff(columns).max() / np.ptp(columns) == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("name", ["$\\frac{", "_hidden", "a\x00b", "a\ud800b", HOSTILE])
def test_figures_take_any_name(name):
    assert picture_grid([(name, np.zeros((1, 8, 8, 3), np.uint8))])
    assert curve_figure({name: ([0, 1], [0, 1]), "b": ([0], [0])}, name, name)
    assert bar_figure({name: {name: 1.0}, "b": {}}, name)


def test_a_png_holds_nothing_but_pixels():
    png = curve_figure({"loss": ([0, 1], [0, 1])}, "x", "y")
    assert not any(chunk in png for chunk in (b"tEXt", b"iTXt", b"zTXt", b"tIME", b"eXIf"))


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
