"""Plots of a bench and of an evaluation with matplotlib, an optional dependency."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from qlutattn_patch.measure import bench, evaluate
from qlutattn_patch.measure.documents import BenchRow
from qlutattn_patch.system.errors import ExpectedError

SUFFIXES = (".svg", ".png")
_UPSTREAM = {"linestyle": "--"}


def check(path: Path) -> None:
    """Check, before measuring, that a plot can be made and written there."""
    if path.suffix.lower() not in SUFFIXES:
        raise ExpectedError(
            f"'{path}' is not a file name for a plot: it must end in {' or '.join(SUFFIXES)}.",
            f"--plot {path.stem or 'plot'}.svg",
        )
    if not path.absolute().parent.is_dir():
        raise ExpectedError(f"There is no folder {path.absolute().parent} to write the plot to.", "create it")
    _figure_class()


def plot_bench(result: bench.Result, path: Path) -> None:
    """Write the plot as SVG or PNG, by suffix: a row of two panels for each work and thread count."""
    groups = list(dict.fromkeys((row.work, row.threads) for row in result.rows))
    figure = _new_figure(11, 3.8 * len(groups))
    panels = figure.subplots(len(groups), 2, squeeze=False)
    figure.suptitle(f"{result.cpu}, {result.caches} caches", fontsize="medium")
    for (work, threads), (times, ratios) in zip(groups, panels, strict=True):
        rows = [row for row in result.rows if (row.work, row.threads) == (work, threads)]
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


def _new_figure(width: float, height: float) -> Any:
    """An empty matplotlib Figure, in inches, with reproducible ids in SVG."""
    made = _figure_class()(figsize=(width, height), layout="constrained")
    importlib.import_module("matplotlib").rcParams["svg.hashsalt"] = "qlutattn"
    return made


def _save(made: Any, path: Path) -> None:
    """Write the plot as SVG or PNG, by suffix."""
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
    try:
        made.savefig(path, metadata=metadata)
    except OSError as failure:
        raise ExpectedError(f"{path} cannot be written: {failure.strerror}.", "name another file") from None


def _figure_class() -> Any:
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError:
        raise ExpectedError(
            "A plot needs the Python package matplotlib, which is not installed.",
            "python -m pip install matplotlib (or: pip install 'qlutattn-patch[plot]')",
        ) from None
