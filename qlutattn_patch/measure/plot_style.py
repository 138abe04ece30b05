"""What all plots share: a colour per cache, light and dark, labels that do not overlap, and where files go."""

from __future__ import annotations

import importlib
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qlutattn_patch.system.errors import ExpectedError, UsageError
from qlutattn_patch.system.files import check_place, write

SUFFIXES = (".svg", ".png")
UPSTREAM = {"linestyle": "--"}
# Readable on white and on near black, and told apart with any colour vision; the report's colours are these, too.
_COLORS = {
    "f16": ("#75797f", "o"),
    "q8_0": ("#28a0c8", "D"),
    "q5_0": ("#00783c", "P"),
    "q4_0": ("#64648c", "X"),
    "K8V8": ("#0072b2", "o"),
    "K4V4": ("#d55e00", "s"),
    "K4V2": ("#009e73", "v"),
    "K2V2": ("#7828ff", "^"),
    "K2V1": ("#7878ff", "<"),
    "K1V1": ("#c8283c", ">"),
    "K4": ("#2864c8", "h"),
    "V4": ("#b43c00", "p"),
}
_SPARE = ("#8a6100", "#a8578f", "#4d7c0f", "#5a5a5a")  # of any other cache
# A browser applies this by the reader's settings; matplotlib draws axes and text in black on white.
_DARK = """<style>@media (prefers-color-scheme: dark) {
g[id^="text"], g[id^="text"] g { fill: #e4e6ea !important }
[style*="fill: #ffffff"] { fill: #16181c !important }
[style*="stroke: #000000"] { stroke: #aab0b8 !important }
}</style>
"""
_PLACES = ((6, 4), (6, -10), (-6, 4), (-6, -10), (10, 14), (10, -20), (-10, 14), (-10, -20), (16, 24), (16, -30))


def check(path: Path) -> None:
    """Check, before measuring, that a plot can be made and written there."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"'{path}' is not a file name for a plot: it must end in {' or '.join(SUFFIXES)}.",
            f"--plot {path.stem or 'plot'}.svg",
        )
    check_place(path, "--plot")
    _figure_class()


def style_of(cache: str) -> dict[str, Any]:
    """The colour and the marker of a cache, the same in all plots; with a window it is dotted."""
    base, plus, _ = cache.partition("+")
    color, marker = _COLORS.get(base) or (_SPARE[sum(map(ord, base)) % len(_SPARE)], "*")
    return {"color": color, "marker": marker, "markersize": 4, **({"linestyle": ":"} if plus else {})}


def scale_of(values: Sequence[float]) -> str:
    """The scale of an axis: logarithmic where positive values span more than a decade."""
    return "log" if values and min(values) > 0 and max(values) / min(values) >= 10 else "linear"


def ticks_in_numbers(axis: Any) -> None:
    """Number the ticks of a logarithmic axis in plain numbers: 2 and not 2¹."""
    axis.set_major_formatter(importlib.import_module("matplotlib.ticker").FuncFormatter(lambda x, _: _number(x)))


def _number(value: float) -> str:
    for size, unit in ((2**20, "M"), (2**10, "k")):
        if value >= size and math.isclose(value / size, round(value / size)):
            return f"{value / size:.0f}{unit}"
    return f"{value:g}"


def place_labels(axes: Any, labels: Sequence[tuple[str, float, float, str]]) -> None:
    """Write each label (text, x, y, colour) beside its point, where it overlaps no other label and no line."""
    figure = axes.figure
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    taken = [tuple(line.get_window_extent(renderer).padded(1).extents) for line in axes.lines]
    inside = axes.get_window_extent(renderer).extents
    for text, x, y, color in labels:
        made = axes.annotate(text, (x, y), _PLACES[0], textcoords="offset points", fontsize="small", color=color)
        best = (math.inf, _PLACES[0])
        for place in _PLACES:
            _move(made, place)
            box = made.get_window_extent(renderer).extents
            lost = sum(_overlap(box, other) for other in taken) + _outside(box, inside)
            best = min(best, (lost, place))
            if lost == 0:
                break
        _move(made, best[1])
        taken.append(tuple(made.get_window_extent(renderer).extents))


def _move(label: Any, place: tuple[int, int]) -> None:
    label.set_position(place)
    label.set_horizontalalignment("left" if place[0] > 0 else "right")


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _outside(box: Sequence[float], inside: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, inside)


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib Figure, in inches, with reproducible ids in SVG."""
    made = _figure_class()(figsize=(width, height), layout="constrained")
    importlib.import_module("matplotlib.backends.backend_agg").FigureCanvasAgg(made)
    importlib.import_module("matplotlib").rcParams["svg.hashsalt"] = "qlutattn"
    return made


def save(made: Any, path: Path) -> None:
    """Write the plot by suffix: an SVG that follows the reader's light or dark mode, or a PNG."""
    drawn = io.BytesIO()
    if path.suffix.lower() == ".svg":
        made.savefig(drawn, format="svg", metadata={"Date": None})
        write(path, re.sub(rb"(<svg [^>]*>\n)", lambda found: found[1] + _DARK.encode(), drawn.getvalue(), count=1))
    else:
        made.savefig(drawn, format="png")
        write(path, drawn.getvalue())


def _figure_class() -> Any:
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError:
        raise ExpectedError(
            "A plot needs the Python package matplotlib, which is not installed.",
            "python -m pip install matplotlib (or: pip install 'qlutattn-patch[plot]')",
        ) from None
