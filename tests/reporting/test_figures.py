import itertools

import cv2
import matplotlib.colors
import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from tfadv.reporting import charts
from tfadv.reporting.figures import (
    bar_figure,
    curve_figure,
    histogram_figure,
    image_grid,
    roc_figure,
    tsne_figure,
)

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>{{ 7 * 7 }}</style>&$'


def decode(png):
    """Returns RGBA, uint8 [height, width, 4]."""
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), -1), cv2.COLOR_BGRA2RGBA)


def coloured(png, colour):
    """Returns which pixels have this colour."""
    return (decode(png) == [*colour, 255]).all(axis=-1)


@pytest.mark.parametrize(("size", "scale"), [(64, 2), (32, 4), (224, 1)])
def test_grid_shows_the_exact_pixels_enlarged_by_a_whole_factor(size, scale):
    random = np.random.default_rng(0)
    rows = [
        (name, random.integers(0, 256, (3, size, size, 3), dtype=np.uint8))
        for name in ("in", "out")
    ]
    image = decode(image_grid(rows))
    tile = size * scale
    assert image.shape[1] == 3 * tile + 2 * 6
    assert image.shape[0] == 2 * (tile + 44)
    for row, (_, images) in enumerate(rows):
        for i, original in enumerate(images):
            top, left = 44 + row * (tile + 44), i * (tile + 6)
            shown = image[top : top + tile, left : left + tile]
            np.testing.assert_array_equal(shown[::scale, ::scale, :3], original)
            np.testing.assert_array_equal(
                shown[scale - 1 :: scale, scale - 1 :: scale, :3], original
            )
            assert (shown[..., 3] == 255).all()


def test_grid_writes_its_label_above_each_row_and_nothing_elsewhere():
    black = np.zeros((2, 32, 32, 3), np.uint8)
    alpha = decode(image_grid([("Input", black), ("", black)]))[..., 3]
    assert alpha[:44].any()
    assert not alpha[44 + 128 : 2 * 44 + 128].any()  # the second label is empty
    assert not alpha[44 : 44 + 128, 128:134].any()  # the gap


@pytest.mark.parametrize("label", ["nearest neighbour, of the features", "W" * 60, "ÅÇy " * 20])
def test_a_long_label_is_wrapped_and_not_cut(label):
    alpha = decode(image_grid([(label, np.zeros((2, 32, 32, 3), np.uint8))]))[..., 3]
    band = alpha[:-128]
    assert alpha.shape[1] == 2 * 128 + 6
    assert not band[:, -1].any()
    # At this size the label is longer than one line, and each line has ink.
    lines = (band.shape[0] - 16) // 28
    assert lines > 1
    assert all(band[7 + 28 * i : 7 + 28 * (i + 1)].any() for i in range(lines))
    assert not band[0].any()


def test_ten_rows_of_eight_images_make_one_grid():
    rows = [(f"row {i}", np.full((8, 64, 64, 3), 9 * i, np.uint8)) for i in range(10)]
    assert decode(image_grid(rows)).shape[:2] == (10 * (128 + 44), 8 * 134 - 6)


def test_grid_is_also_written_to_a_file(tmp_path):
    png = image_grid([("a", np.zeros((1, 8, 8, 3), np.uint8))], tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes() == png


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [("a", np.zeros((0, 8, 8, 3), np.uint8))],
        [("a", np.zeros((1, 8, 8, 3), np.float32))],
        [("a", np.zeros((1, 8, 8, 3), np.uint8)), ("b", np.zeros((2, 8, 8, 3), np.uint8))],
    ],
    ids=["no rows", "no images", "floats", "unequal rows"],
)
def test_grid_refuses(rows):
    with pytest.raises(ValueError, match="a grid needs rows of one shape"):
        image_grid(rows)


def test_bars_are_as_long_as_their_values_and_the_highest_is_on_top():
    bars = coloured(bar_figure({"ours": {"low": 0.25, "high": 1.0}}, "MCC"), (0x3B, 0x8E, 0xA5))
    lengths = bars.sum(axis=1)
    lengths = lengths[lengths > 0]
    assert lengths[0] / lengths[-1] == pytest.approx(4, rel=0.02)


def test_bars_of_two_series_are_side_by_side():
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


BLUE, ORANGE = (0x3B, 0x8E, 0xA5), (0xD9, 0x79, 0x3D)


def test_a_roc_curve_has_a_logarithmic_axis_from_a_thousandth_to_one():
    # No true accepts below 1% false accepts and 100% above: a vertical line at a third.
    line = coloured(roc_figure({"a": ([0.01, 0.01], [0.0, 1.0])}), BLUE)[80:]
    rows, columns = np.flatnonzero(line.any(axis=1)), np.flatnonzero(line.any(axis=0))
    vertical = np.flatnonzero(line[(rows[0] + rows[-1]) // 2])
    assert (vertical.mean() - columns[0]) / np.ptp(columns) == pytest.approx(1 / 3, abs=0.02)


def test_a_roc_curve_does_not_depend_on_the_order_of_its_points():
    false, true = np.array([0.001, 0.01, 0.1, 0.5]), np.array([0.1, 0.3, 0.6, 0.9])
    png = roc_figure({"a": (false, true)})
    assert roc_figure({"a": (false[::-1], true[::-1])}) == png
    assert roc_figure({"a": (np.r_[false, np.nan, 0.2], np.r_[true, 0.2, np.nan])}) == png


def test_a_roc_curve_of_one_point_runs_from_end_to_end():
    assert roc_figure({"a": ([0.2], [0.7])}) == roc_figure({"a": ([0, 0.2, 1], [0, 0.7, 1])})


def test_the_area_under_a_roc_curve_is_in_the_legend_if_given():
    series = {"a": ([0, 1], [0, 1])}
    assert roc_figure(series, {"a": 0.5}) != roc_figure(series, {"b": 0.5}) == roc_figure(series)


def test_histograms_share_an_axis_and_lie_at_their_values():
    random = np.random.default_rng(0)
    near, far = random.normal(0.2, 0.05, 5000), random.normal(0.8, 0.05, 5000)
    image = histogram_figure({"a": {"genuine": far, "impostor": near}, "b": {"genuine": near}}, "x")
    height = decode(image).shape[0]
    blue, orange = coloured(image, BLUE), coloured(image, ORANGE)
    blue[: height // 5], orange[: height // 5] = False, False  # the legend
    means = [
        np.bincount(np.nonzero(mask)[1]).argmax()  # the mean's vertical line
        for mask in (blue[: height * 55 // 100], orange, blue[height * 55 // 100 :])
    ]
    assert means[0] > means[1] == pytest.approx(means[2], abs=2)


def test_a_distributions_mean_is_a_vertical_line():
    spikes = coloured(histogram_figure({"a": {"genuine": [0, 0, 1, 1]}}, "x"), BLUE)
    columns = np.flatnonzero(spikes.sum(axis=0) > spikes.any(axis=1).sum() / 2)
    middle = (columns[0] + columns[-1]) / 2
    assert np.abs(columns - middle).min() <= 2


EDGES = {
    "empty": ([], []),
    "one point": ([0.5], [0.5]),
    "NaN": ([np.nan, np.nan], [np.nan, 0.5]),
    "some infinite": ([0.1, np.inf, 0.3], [0.1, 0.2, 0.3]),
    "constant": ([0.5] * 9, [0.5] * 9),
}


@pytest.mark.parametrize("points", EDGES.values(), ids=EDGES)
@pytest.mark.filterwarnings("error")
def test_figures_accept_degenerate_points(points):
    values = points[0]
    for png in (
        roc_figure({"a": points, "b": ([0, 1], [0, 1])}, {"a": float("nan")}),
        histogram_figure({"a": {"genuine": values, "impostor": [0.5, 0.2]}, "b": {}}, "x"),
        histogram_figure({"a": {"genuine": values}}, "x"),
    ):
        height, width, _ = decode(png).shape
        assert (width, 300 < height < 1200) == (1440, True)


@pytest.mark.filterwarnings("error")
def test_figures_accept_no_data():
    for png in (roc_figure({}), histogram_figure({}, "x"), histogram_figure({"a": {}}, "x")):
        assert decode(png).shape[1] == 1440


def test_series_beyond_the_colours_have_broken_lines():
    level = {str(i): ([0, 1], [i, i]) for i in range(8)}
    line = coloured(curve_figure(level, "x", "y"), BLUE)[150:]
    first, seventh = (np.flatnonzero(line.any(axis=1))[i] for i in (-1, 0))  # 0 below, 6 above
    assert line[first - 1].sum() > 1.2 * line[seventh + 1].sum() > 0


def test_bars_beyond_the_colours_are_hatched():
    bars = coloured(bar_figure({str(i): {"a": 1.0} for i in range(7)}, "MCC"), BLUE)[150:]
    lengths = bars.sum(axis=1)
    lengths = lengths[lengths > lengths.max() / 10]
    assert lengths[-1] < 0.9 * lengths[0]


@pytest.mark.parametrize("name", ["$\\frac{", "_hidden", "a\x00b", "a\ud800b", HOSTILE])
def test_figures_accept_any_name(name):
    assert image_grid([(name, np.zeros((1, 8, 8, 3), np.uint8))])
    assert curve_figure({name: ([0, 1], [0, 1]), "b": ([0], [0])}, name, name)
    assert bar_figure({name: {name: 1.0}, "b": {}}, name)
    assert roc_figure({name: ([0, 1], [0, 1])}, {name: 0.5})
    assert histogram_figure({name: {name: [0.1, 0.2], "b": [0.3]}}, name)
    assert tsne_figure({name: (np.eye(2), np.array([0, 1]), [name, "b"])})


def test_a_png_holds_nothing_but_pixels():
    png = curve_figure({"loss": ([0, 1], [0, 1])}, "x", "y")
    assert not any(chunk in png for chunk in (b"tEXt", b"iTXt", b"zTXt", b"tIME", b"eXIf"))


NAVY, VERMILION = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def squares(image, colour):
    """Returns rows and columns of the pixels of a colour, without the legend."""
    mask = coloured(image, colour)
    mask[:110] = False
    return np.nonzero(mask)


def test_points_lie_at_their_place_with_the_look_of_their_class():
    random = np.random.default_rng(0)
    classes = np.repeat([0, 1], 200)
    points = random.normal(size=(400, 2)) + np.where(classes[:, None] == 1, [20.0, 20.0], 0.0)
    png = tsne_figure({"a": (points, classes, ["low", "high"])})
    (low_rows, low_columns), (high_rows, high_columns) = (
        squares(png, colour) for colour in (NAVY, VERMILION)
    )
    assert low_columns.max() < high_columns.min()
    assert low_rows.min() > high_rows.max()


def test_a_class_has_the_same_look_in_every_panel():
    here, first = np.zeros((30, 2)), np.zeros(30, int)
    png = tsne_figure({"a": (here, first, ["x"]), "b": (here, first + 1, ["y", "x"])})
    columns = squares(png, NAVY)[1]
    assert columns.min() < decode(png).shape[1] / 2 < columns.max()
    assert not squares(png, VERMILION)[0].any()  # y has a look, but no points


def test_a_rare_class_is_drawn_on_top_of_a_frequent_one():
    classes = np.array([0] + [1] * 50)
    png = tsne_figure({"a": (np.zeros((51, 2)), classes, ["rare", "frequent"])})
    assert squares(png, NAVY)[0].any()


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_there_are_two_panels_per_row(count):
    points = np.random.default_rng(0).normal(size=(20, 2))
    panels = {str(i): (points, np.zeros(20, int), ["x"]) for i in range(count)}
    height, width, _ = decode(tsne_figure(panels)).shape
    assert width == 1440
    rows, columns = -(-count // 2), min(2, count)
    assert height / width == pytest.approx((0.5 + rows * 7.4 / columns) / 7.2, abs=0.01)


@pytest.mark.filterwarnings("error")
def test_points_that_are_not_finite_are_left_out():
    points = np.array([[0.0, 0], [1, 1], [np.nan, 2], [3, np.inf]])
    png = tsne_figure({"a": (points, np.array([0, 0, 1, 1]), ["x", "y"])})
    assert not squares(png, VERMILION)[0].any()
    assert tsne_figure({"a": (np.zeros((0, 2)), np.zeros(0, int), ["x"])})


# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.parametrize("sight", SIGHT.values(), ids=SIGHT)
def test_colour_blind_readers_can_distinguish_points(sight):
    colours = [matplotlib.colors.to_rgb(charts.point(i)["color"]) for i in range(6)]
    linear = np.where(np.array(colours) <= 0.04045, np.array(colours) / 12.92, 0)
    linear = np.where(linear > 0, linear, ((np.array(colours) + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(sight), 0, 1)
    seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    for a, b in itertools.combinations(rgb2lab(seen), 2):
        assert deltaE_ciede2000(a, b) > 10  # 2 is just noticeable
