"""Plots of a bench, of an evaluation and of a profile with matplotlib, an optional dependency."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from qlutattn_patch.measure import bench, evaluate, profile, sampling
from qlutattn_patch.measure.documents import BenchRow, ProfileSection
from qlutattn_patch.system.errors import ExpectedError, UsageError, named
from qlutattn_patch.system.files import check_place

SUFFIXES = (".svg", ".png")
_UPSTREAM = {"linestyle": "--"}
_MOST_BARS = 10


def check(path: Path) -> None:
    """Check, before measuring, that a plot can be made and written there."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"'{path}' is not a file name for a plot: it must end in {' or '.join(SUFFIXES)}.",
            f"--plot {path.stem or 'plot'}.svg",
        )
    check_place(path, "--plot")
    _figure_class()


def plot_bench(result: bench.Result, path: Path) -> None:
    """Write the plot as SVG or PNG, by suffix: a row of two panels for each work and thread count."""
    groups = list(dict.fromkeys((row.title, row.threads) for row in result.rows))
    figure = _new_figure(11, 3.8 * len(groups))
    panels = figure.subplots(len(groups), 2, squeeze=False)
    figure.suptitle(f"{result.cpu}, {result.caches} caches", fontsize="medium")
    for (work, threads), (times, ratios) in zip(groups, panels, strict=True):
        rows = [row for row in result.rows if (row.title, row.threads) == (work, threads)]
        title = f"{work}, {threads} thread{'s' if threads > 1 else ''}"
        for cache in dict.fromkeys(row.cache for row in rows):
            mine = sorted((row for row in rows if row.cache == cache), key=lambda row: row.n_kv)
            style = {"marker": "o", "markersize": 3, "label": cache, **(_UPSTREAM if _is_upstream(mine) else {})}
            times.plot([row.n_kv for row in mine], [row.median_ms for row in mine], **style)
            known = [row for row in mine if row.vs_f16 is not None]
            ratios.plot([row.n_kv for row in known], [row.vs_f16 for row in known], **style)
        _label_bench_axes(times, f"{title}: time", "ms", "log")
        _label_bench_axes(ratios, f"{title}: speed relative to f16", "× f16", "linear")
    _save(figure, path)


def _label_bench_axes(axes: Any, title: str, unit: str, scale: str) -> None:
    axes.set_title(title, fontsize="medium")
    axes.set_xscale("log", base=2)
    axes.set_yscale(scale)
    axes.set_xlabel("keys")
    axes.set_ylabel(unit)
    axes.grid(alpha=0.3)
    if scale == "linear":
        axes.set_ylim(bottom=0)
        axes.axhline(1, color="grey", linewidth=0.8)
    axes.legend(fontsize="small")


def _is_upstream(rows: list[BenchRow]) -> bool:
    return all(row.kernel == "upstream" for row in rows)


def plot_sampling(result: sampling.Result, path: Path) -> None:
    """Write the plot as SVG or PNG, by suffix: a panel of times for each chain; upstream's are dashed."""
    chains = list(dict.fromkeys(row.chain for row in result.rows))
    figure = _new_figure(3.2 * len(chains), 3.8)
    panels = figure.subplots(1, len(chains), squeeze=False)[0]
    figure.suptitle(f"{result.cpu}, kernel {result.kernel}: time to draw a token (dashed: upstream)", fontsize="medium")
    for chain, axes in zip(chains, panels, strict=True):
        for logits in dict.fromkeys(row.logits for row in result.rows):
            mine = sorted((r for r in result.rows if (r.chain, r.logits) == (chain, logits)), key=lambda r: r.vocab)
            style = {"marker": "o", "markersize": 3}
            axes.plot([row.vocab for row in mine], [row.select.median_us for row in mine], label=logits, **style)
            style |= {"color": axes.lines[-1].get_color(), **_UPSTREAM}
            axes.plot([row.vocab for row in mine], [row.stock.median_us for row in mine], **style)
        axes.set_title(chain, fontsize="medium")
        axes.set_yscale("log")
        axes.set_xlabel("tokens in the vocabulary")
        axes.set_ylabel("µs")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    _save(figure, path)


def plot_evaluation(result: evaluate.Result, path: Path) -> None:
    """Write the plot as SVG or PNG, by suffix.

    A cache is a line: its dot is at the bits of the codes, its bar at those of the whole cache with window and sink.
    f16, the reference, has divergence 0 and is not on the logarithmic scale.
    """
    figure = _new_figure(8, 5.5)
    axes = figure.subplots()
    rows = [row for row in result.rows if (row.type_k, row.type_v) != ("f16", "f16")]
    for row in rows:
        x = [row.bpw, row.bits_in_cache or row.bpw]
        same = row.type_k == row.type_v
        axes.plot(x, [row.kld_mean] * 2, "--" if same else "-", marker="|", label=row.cache)
        axes.plot(x[:1], [row.kld_mean], "o", color=axes.lines[-1].get_color())
        beside = (6, -3) if same else (4, 4)
        axes.annotate(row.cache, (x[0], row.kld_mean), beside, textcoords="offset points", fontsize="small")
    if all(row.kld_mean > 0 for row in rows):
        axes.set_yscale("log")
    _label_evaluation_axes(axes, result)
    _save(figure, path)


def _label_evaluation_axes(axes: Any, result: evaluate.Result) -> None:
    made = result
    axes.set_title(f"{Path(made.model).name}, {made.tokens} tokens in contexts of {made.n_ctx}", fontsize="medium")
    axes.set_xlabel("bits per value: ● codes and scales, | the whole cache with window and sink")
    axes.set_ylabel("mean KL divergence from f16")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)


def plot_profile(result: profile.Result, path: Path) -> None:
    """Write the plot as SVG or PNG, by suffix: two panels for each kind of graph, its operations and its layers.

    A bar is the time per token (per graph where there are no tokens), of which the pale end is waiting.
    """
    figure = _new_figure(11, 3.6 * len(result.sections))
    figure.suptitle(" ".join(result.argv), fontsize="medium")
    panels = figure.subplots(len(result.sections), 2, squeeze=False)
    for section, (operations, layers) in zip(result.sections, panels, strict=True):
        count, per = (section.tokens, "token") if section.tokens else (section.graphs, "graph")
        title = f"{section.kind}, {section.threads} thread(s): {section.ms / count:.3f} ms per {per}"
        _draw_parts(operations, _parts(section, count), title, f"ms per {per}")
        rows = [(row.name, row.ms / count, row.wait) for row in section.layers]
        _draw_parts(layers, rows, "layers", f"ms per {per}")
    _save(figure, path)


def _parts(section: ProfileSection, count: int) -> list[tuple[str, float, float]]:
    """The operations that take longest with their times and waits, the others as one, and what is outside of nodes."""
    rows = [(row.name, row.ms / count, row.wait) for row in section.operations]
    parts, rest = rows[:_MOST_BARS], rows[_MOST_BARS:]
    if rest:
        time = sum(ms for _, ms, _ in rest)
        parts.append(("others", time, sum(ms * wait for _, ms, wait in rest) / time if time else 0.0))
    outside = section.ms / count - sum(ms for _, ms, _ in rows)
    return [*parts, ("start and end", max(outside, 0.0), 0.0)]


def _draw_parts(axes: Any, parts: list[tuple[str, float, float]], title: str, unit: str) -> None:
    names = [name for name, _, _ in parts]
    busy = [ms * (1 - wait) for _, ms, wait in parts]
    axes.barh(names, busy, color="C0")
    axes.barh(names, [ms * wait for _, ms, wait in parts], left=busy, color="C0", alpha=0.3)
    axes.invert_yaxis()
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel(f"{unit}; pale: waiting at barriers")
    axes.tick_params(axis="y", labelsize="small")
    axes.grid(axis="x", alpha=0.3)


def _new_figure(width: float, height: float) -> Any:
    """An empty matplotlib Figure, in inches, with reproducible ids in SVG."""
    made = _figure_class()(figsize=(width, height), layout="constrained")
    importlib.import_module("matplotlib").rcParams["svg.hashsalt"] = "qlutattn"
    return made


def _save(made: Any, path: Path) -> None:
    """Write the plot as SVG or PNG, by suffix."""
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
    with named(path):
        made.savefig(path, metadata=metadata)


def _figure_class() -> Any:
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError:
        raise ExpectedError(
            "A plot needs the Python package matplotlib, which is not installed.",
            "python -m pip install matplotlib (or: pip install 'qlutattn-patch[plot]')",
        ) from None
