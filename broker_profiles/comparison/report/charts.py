"""Line charts as SVG that takes its colours and fonts from the page: pygal draws, the page's CSS paints."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import pygal
from markupsafe import Markup
from pygal.style import Style

# pygal looks for its maps, which are not used here, with an import hook of a kind that Python has given up:
# left in place it is a warning, or an error, at every import of anything.
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "pygal"]

#: In the units of the picture; it grows with the page, so that its letters stay readable on a phone.
_WIDTH, _HEIGHT, _LETTER = 320, 190, 12

#: pygal makes room for letters of this size; the page's CSS sets the same.
_STYLE = Style(
    label_font_size=_LETTER, major_label_font_size=_LETTER, font_family="sans-serif", background="transparent"
)

#: pygal leaves out the label of the very top.
_ABOVE = 1.0001

#: What pygal adds that the page does not want.
_UNWANTED = ("defs", "title", "desc", "style", "script")

#: What is drawn, and what the fields of a measurement are called.
DRAWN = ("median", "low", "high")

Values = Sequence[float | None]


def line_chart(
    labels: Sequence[str],
    median: Values,
    low: Values,
    high: Values,
    *,
    top: float,
    bottom: float | None,
) -> Markup:
    """Return a chart of medians and their intervals, one label a value.

    All charts that are to be compared get one `top`; with a `bottom` the axis is logarithmic, and both are
    powers of ten.
    """
    chart = pygal.Line(
        width=_WIDTH,
        height=_HEIGHT,
        style=_STYLE,
        js=(),
        css=(),
        classes=("lines",),
        margin=4,
        spacing=6,
        show_legend=False,
        truncate_label=-1,
        dots_size=3.5,
        range=(bottom or 0, top * _ABOVE),
        logarithmic=bottom is not None,
        min_scale=2,
        max_scale=4,
        value_formatter=short,
        disable_xml_declaration=True,
    )
    chart.x_labels = list(labels)
    if bottom is not None:
        chart.y_labels = _decades(bottom, top)
    for name, values in zip(DRAWN, (median, low, high), strict=True):
        chart.add(name, list(values), show_dots=name == "median", allow_interruptions=True)
    chart.add_xml_filter(_bare)
    return Markup(chart.render(is_unicode=True))  # noqa: S704 - pygal escapes what it is given


def short(value: Any) -> str:
    """Return a number for an axis, such as `10k`; any other value as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    for step, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= step:
            return f"{value / step:.3g}{letter}"
    return f"{value:.3g}"


def _decades(bottom: float, top: float) -> list[float]:
    """Return the powers of ten between, every other one where they are many."""
    powers = range(round(math.log10(bottom)), round(math.log10(top)) + 1)
    return [10.0**power for power in powers[:: 1 + len(powers) // 7]]


def _bare(root: Any) -> Any:
    """Leave the shapes and texts alone: no styles, scripts, tooltips or ids of pygal's own."""
    for parent in list(root.iter()):
        for child in list(parent):
            if not isinstance(child.tag, str) or child.tag.rpartition("}")[2] in _UNWANTED:
                parent.remove(child)
    root.attrib.pop("id", None)
    # The caption and the table beside it say what it shows.
    root.attrib["aria-hidden"] = "true"
    root.attrib["focusable"] = "false"
    return root
