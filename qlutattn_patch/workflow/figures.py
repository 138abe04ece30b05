"""The report's plots: inline SVG by matplotlib, an optional dependency, in colours that the page sets.

Colours are placeholders in matplotlib's output, and CSS variables in the SVG: light and dark are the page's choice.
"""

from __future__ import annotations

import importlib
import io
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from qlutattn_patch.measure import bench, evaluate, sampling
from qlutattn_patch.measure.documents import SamplingRow
from qlutattn_patch.proof.align import Report, error_ratio

_INK, _MUTED, _GRID = "#0a0af0", "#0a0af1", "#0a0af2"
_PLACEHOLDERS = {_INK: "--ink", _MUTED: "--muted", _GRID: "--line"}
# Colours of the series in light and in dark: told apart with any colour vision (after Okabe and Ito); of caches, those
# of `measure.plot_style`.
LIGHT_AND_DARK = (
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff8c42"),
    ("#009e73", "#2fd0a0"),
    ("#7828ff", "#b79bff"),
    ("#c8283c", "#ff7b86"),
    ("#9c7a00", "#e6c229"),
    ("#28a0c8", "#7fd6f2"),
    ("#4d7c0f", "#a3cf4f"),
)
_PLACEHOLDERS |= {f"#0a0ae{at}": f"--series-{at}" for at in range(len(LIGHT_AND_DARK))}
# Caches keep their colours in all plots; others get what is left.
_OF_CACHE = {"K8V8": 0, "K4V4": 1, "K4V2": 2, "K2V2": 3, "K1V1": 4}
_REST = (5, 6, 7)
_MARKERS = "osD^vPX*"
_NEAR = 1.5  # divergences whose labels would overlap
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "qlutattn",
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "xtick.minor.bottom": False,
    "font.size": 10,
    "font.family": "sans-serif",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
}
_UNIQUE = re.compile(r'(\bid="|xlink:href="#|url\(#)')


def is_available() -> bool:
    """Whether matplotlib is installed."""
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError:
        return False
    return True


def of_align(report: Report, name: str) -> list[tuple[str, str]]:
    """Captions with SVGs: each case's largest error, in units of its tolerance, by the types of K and V."""
    pairs: dict[str, list[float]] = {}
    for case in report.cases:
        ratio = error_ratio(case)
        pair = " ".join(kind.removeprefix("qlutattn_").removesuffix("_128x128") for kind in (case.type_k, case.type_v))
        if ratio is not None and math.isfinite(ratio) and case.n_kv_packed:
            pairs.setdefault(pair, []).append(ratio)
    if not pairs:
        return []
    names = sorted(pairs)

    def draw(axes: Any) -> None:
        for at, pair in enumerate(names):
            ratios = pairs[pair]
            axes.plot(ratios, [at] * len(ratios), "o", color=_color(0), alpha=0.7, markeredgewidth=0)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.axvline(1, color=_color(5), linewidth=1.5)
        axes.set_xlim(0, max(1.05, *(1.05 * ratio for ratios in pairs.values() for ratio in ratios)))
        axes.set_xlabel("largest error / tolerance (a case fails beyond 1)")
        axes.grid(axis="x")

    return [("Each case's largest error, by the types of K and V", _svg(draw, f"{name}-1", 1.2 + 0.2 * len(pairs)))]


def of_bench(result: bench.Result, name: str) -> list[tuple[str, str]]:
    """Captions with SVGs: speed relative to f16 over the number of keys, for each work and number of threads."""
    found = []
    for number, (work, threads) in enumerate(dict.fromkeys((row.title, row.threads) for row in result.rows)):
        rows = [row for row in result.rows if (row.title, row.threads) == (work, threads) and row.vs_f16 is not None]
        if all(row.cache == "f16" for row in rows):
            continue
        lines = {
            cache: [(row.n_kv, float(row.vs_f16 or 0)) for row in rows if row.cache == cache]
            for cache in dict.fromkeys(row.cache for row in rows if row.cache != "f16")
        }
        upstream = {row.cache for row in rows if row.kernel == "upstream"}

        def draw(axes: Any, lines: Any = lines, upstream: Any = upstream) -> None:
            axes.axhline(1, color=_MUTED, linewidth=1)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log", base=2)
            _draw_lines(axes, lines, upstream)
            axes.set_xlabel("keys")
            axes.set_ylabel("× f16")
            _label_powers(axes)

        caption = f"{work}, {threads} thread{'s' if threads > 1 else ''}: speed relative to f16"
        found.append((caption, _svg(draw, f"{name}-{number}")))
    return found


def of_sampling(result: sampling.Result, name: str) -> list[tuple[str, str]]:
    """Captions with SVGs: the speed-up over llama.cpp's own code for each chain, by logits and vocabulary."""
    lines = {
        logits: [(_chain_and_vocab(row), float(row.speedup)) for row in result.rows if row.logits == logits]
        for logits in dict.fromkeys(row.logits for row in result.rows)
    }
    labels = list(dict.fromkeys(map(_chain_and_vocab, result.rows)))
    if not labels:
        return []

    def draw(axes: Any) -> None:
        for at, (logits, points) in enumerate(lines.items()):
            where = [labels.index(label) + 0.12 * (at - (len(lines) - 1) / 2) for label, _ in points]
            axes.plot([speedup for _, speedup in points], where, _MARKERS[at], color=_color(at), label=logits)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xscale("log", base=2)
        axes.axvline(1, color=_MUTED, linewidth=1)
        axes.set_xlabel("× llama.cpp's own code")
        axes.grid(axis="x")
        _label_powers(axes, x=True)
        _legend(axes)

    caption = "Time to draw a token: speed-up by chain and vocabulary"
    return [(caption, _svg(draw, f"{name}-1", 1.6 + 0.2 * len(labels)))]


def _chain_and_vocab(row: SamplingRow) -> str:
    return f"{row.chain}, {row.vocab / 1000:.0f}k"


def of_eval(result: evaluate.Result, name: str) -> list[tuple[str, str]]:
    """Captions with SVGs: divergence from f16 over the bits per value; f16 itself has none, and is left out."""
    rows = sorted((row for row in result.rows if row.kld_mean > 0), key=lambda row: row.kld_mean)
    if not rows:
        return []

    def draw(axes: Any) -> None:
        for below, row in zip([None, *rows], rows, strict=False):
            is_packed = any("qlutattn" in kind for kind in (row.type_k, row.type_v))
            axes.plot(row.bpw, row.kld_mean, "o" if is_packed else "s", color=_color(1) if is_packed else _MUTED)
            near = below is not None and row.kld_mean < _NEAR * below.kld_mean
            beside = (5, 5) if near else (5, -11)
            axes.annotate(row.cache, (row.bpw, row.kld_mean), beside, textcoords="offset points", fontsize=9)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(_formatter(lambda value: f"{value:g}"))
        axes.yaxis.set_minor_formatter(_formatter(lambda _: ""))
        axes.set_xlim(0, max(row.bpw for row in rows) * 1.25)
        axes.set_xlabel("bits per value, codes and scales")
        axes.set_ylabel("mean KL divergence from f16")
        axes.grid()

    caption = f"{Path(result.model).name}: divergence over bits (squares: upstream's types)"
    return [(caption, _svg(draw, f"{name}-1"))]


def _draw_lines(axes: Any, lines: dict[str, list[tuple[int, float]]], upstream: Iterable[str]) -> None:
    rest = iter(_REST * len(lines))
    for cache, points in lines.items():
        x, y = zip(*sorted(points), strict=True)
        if cache in upstream:
            axes.plot(x, y, "--", marker="o", color=_MUTED, label=cache)
        else:
            at = _OF_CACHE[cache] if cache in _OF_CACHE else next(rest)
            axes.plot(x, y, marker=_MARKERS[at], color=_color(at), label=cache)
    axes.grid()
    _legend(axes)


def _label_powers(axes: Any, x: bool = False) -> None:
    """Write 4 and not 2², and 8k for 8192."""
    plain = _formatter(lambda value: f"{value / 1024:g}k" if value >= 1024 else f"{value:g}")
    axes.xaxis.set_major_formatter(plain)
    if not x:
        axes.yaxis.set_major_formatter(plain)


def _formatter(text: Callable[[float], str]) -> Any:
    return importlib.import_module("matplotlib.ticker").FuncFormatter(lambda value, _: text(value))


def _legend(axes: Any) -> None:
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 4}
    axes.legend(**below, ncols=4, handlelength=1.6, columnspacing=1.2)


def _color(at: int) -> str:
    return f"#0a0ae{at % len(LIGHT_AND_DARK)}"


def _svg(draw: Callable[[Any], None], name: str, height: float = 3.3) -> str:
    """A plot as an SVG element without size, fonts, dates or links, its colours variables, its ids beginning `name`."""
    matplotlib = importlib.import_module("matplotlib")
    out = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure = importlib.import_module("matplotlib.figure").Figure(figsize=(4.6, height))
        draw(figure.subplots())
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, bbox_inches="tight", pad_inches=0.05, metadata=metadata)
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    text = _UNIQUE.sub(rf"\g<1>{name}-", text).replace("<svg ", '<svg role="img" ', 1)
    for placeholder, variable in _PLACEHOLDERS.items():
        text = text.replace(placeholder, f"var({variable})")
    return re.sub(r"font-family: [^;\"]*|(font: [\d.]+px) [^;\"]*", r"\1", text)
