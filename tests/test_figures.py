import cv2
import numpy as np
import pytest

from tfadv.figures import bar_figure, curve_figure, picture_grid

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>{{ 7 * 7 }}</style>&$'


def decode(png):
    """RGBA, uint8 [height, width, 4]."""
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), -1), cv2.COLOR_BGRA2RGBA)


def coloured(png, colour):
    """Which pixels have this colour."""
    return (decode(png) == [*colour, 255]).all(axis=-1)


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
