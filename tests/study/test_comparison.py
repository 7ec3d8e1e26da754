"""The picture that compares methods, checked by reading the figure."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from tinynet.plots import comparison, style
from tinynet.plots.comparison import Curve, Panel

X = [5, 20, 100]
FIRST = Curve("one way", X, [[0.5, 0.7], [0.8, 0.8], [0.85, 0.95]])
SECOND = Curve("another way", X, [[0.6, 0.65], [0.7, 0.75], [0.9, 0.91]], joined=False)


def draw(panels, path=None):
    with style.house_style(path):
        return style.finish(comparison.accuracy_panels("Title", "What it shows.", panels), path)


def texts(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_a_line_is_the_mean_and_a_band_the_range():
    (axes,) = draw([Panel("labels", [FIRST])]).axes
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_xydata(), [[5, 0.6], [20, 0.8], [100, 0.9]])
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    assert {(round(x), round(y, 6)) for x, y in corners} == {
        *((5, 0.5), (20, 0.8), (100, 0.85)),
        *((5, 0.7), (100, 0.95)),
    }


def test_points_that_are_not_joined_have_a_bar_each():
    (axes,) = draw([Panel("labels", [SECOND])]).axes
    (line,) = axes.lines
    assert line.get_linestyle() == "None"
    segments = [[tuple(point) for point in segment] for segment in axes.collections[0].get_segments()]
    assert segments == [[(5, 0.6), (5, 0.65)], [(20, 0.7), (20, 0.75)], [(100, 0.9), (100, 0.91)]]


def test_methods_differ_in_colour_and_in_marker_and_are_named():
    figure = draw([Panel("labels", [FIRST, SECOND])])
    first, second = figure.axes[0].lines
    assert to_hex(first.get_color()) != to_hex(second.get_color())
    assert first.get_marker() != second.get_marker()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one way", "another way"]


def test_axes():
    figure = draw(
        [Panel("labels", [FIRST], log=True, ticks=X), Panel("ms", [SECOND], reference=("whole", 1500, 0.9))]
    )
    left, right = figure.axes
    assert left.get_xscale() == "log"
    assert texts(left.xaxis) == ["5", "20", "100"]
    assert (left.get_xlabel(), left.get_ylabel(), right.get_xlabel()) == ("labels", "test accuracy", "ms")
    assert right.get_xlim()[0] == 0
    assert "1,000" in texts(right.xaxis)
    assert all(text.endswith("%") for text in texts(left.yaxis))
    assert left.get_ylim() == right.get_ylim()
    assert [(line.get_label(), line.get_marker()) for line in right.lines if line.get_marker() == "*"] == [
        ("whole", "*")
    ]


@pytest.mark.parametrize("panels", [1, 2])
def test_all_words_are_on_the_page(panels):
    figure = draw([Panel("labels for each of the classes", [FIRST, SECOND])] * panels)
    page = figure.bbox
    for text in [*figure.texts, *figure.legends[0].get_texts(), *(axes.xaxis.label for axes in figure.axes)]:
        box = text.get_window_extent()
        assert page.x0 <= box.x0 <= box.x1 <= page.x1
        assert page.y0 <= box.y0 <= box.y1 <= page.y1
    legend, label = figure.legends[0].get_window_extent(), figure.axes[0].xaxis.label.get_window_extent()
    assert legend.y1 < label.y0  # the legend is below everything else
