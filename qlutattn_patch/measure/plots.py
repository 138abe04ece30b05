"""Plots of a bench, of sampling, of an evaluation and of a profile with matplotlib, an optional dependency."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qlutattn_patch.measure import bench, evaluate, profile, sampling
from qlutattn_patch.measure.documents import BenchRow, ProfileSection
from qlutattn_patch.measure.plot_style import (
    UPSTREAM,
    new_figure,
    place_labels,
    save,
    scale_of,
    style_of,
    ticks_in_numbers,
)

_MOST_BARS = 10


def plot_bench(result: bench.Result, path: Path) -> None:
    """Write the plot as SVG or PNG, by suffix: a row of two panels for each work and thread count."""
    groups = list(dict.fromkeys((row.title, row.threads) for row in result.rows))
    figure = new_figure(11, 3.8 * len(groups))
    panels = figure.subplots(len(groups), 2, squeeze=False)
    figure.suptitle(f"{result.cpu}, {result.caches} caches", fontsize="medium")
    drawn: dict[str, Any] = {}
    for (work, threads), (times, ratios) in zip(groups, panels, strict=True):
        rows = [row for row in result.rows if (row.title, row.threads) == (work, threads)]
        title = f"{work}, {threads} thread{'s' if threads > 1 else ''}"
        for cache in dict.fromkeys(row.cache for row in rows):
            mine = sorted((row for row in rows if row.cache == cache), key=lambda row: row.n_kv)
            style = {"label": cache, **style_of(cache), **(UPSTREAM if _is_upstream(mine) else {})}
            drawn[cache] = times.plot([row.n_kv for row in mine], [row.median_ms for row in mine], **style)[0]
            known = [row for row in mine if row.vs_f16 is not None and not _is_window(row)]
            ratios.plot([row.n_kv for row in known], [row.vs_f16 for row in known], **style)
        _label_bench_axes(times, f"{title}: time", "ms", [row.median_ms for row in rows], 10)
        shown = [row.vs_f16 for row in rows if row.vs_f16 is not None and not _is_window(row)]
        _label_bench_axes(ratios, f"{title}: speed relative to f16", "× f16", shown, 2)
        ratios.axhline(1, color="grey", linewidth=0.8)
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=min(len(drawn), 9), fontsize="small")
    save(figure, path)


def _label_bench_axes(axes: Any, title: str, unit: str, values: Sequence[float], base: int) -> None:
    axes.set_title(title, fontsize="medium")
    axes.set_xscale("log", base=2)
    ticks_in_numbers(axes.xaxis)
    scale = scale_of(values)
    axes.set_yscale(scale, **({"base": base} if scale == "log" else {}))
    if scale == "log":
        ticks_in_numbers(axes.yaxis)
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel("keys")
    axes.set_ylabel(unit)
    axes.grid(alpha=0.3)


def _is_upstream(rows: list[BenchRow]) -> bool:
    return all(row.kernel == "upstream" for row in rows)


def _is_window(row: BenchRow) -> bool:
    """Whether this is a window alone: its ratio, which grows with the keys that it leaves out, flattens the others'."""
    return row.window > 0 and row.cache.startswith("w")


def plot_sampling(result: sampling.Result, path: Path) -> None:
    """Write the plot as SVG or PNG, by suffix: a panel of times for each chain; upstream's are dashed."""
    chains = list(dict.fromkeys(row.chain for row in result.rows))
    figure = new_figure(max(3.2 * len(chains), 6), 4.2)
    panels = figure.subplots(1, len(chains), squeeze=False, sharey=True)[0]
    figure.suptitle(f"{result.cpu}, kernel {result.kernel}: time to draw a token (dashed: upstream)", fontsize="medium")
    drawn: dict[str, Any] = {}
    for chain, axes in zip(chains, panels, strict=True):
        for logits in dict.fromkeys(row.logits for row in result.rows):
            mine = sorted((r for r in result.rows if (r.chain, r.logits) == (chain, logits)), key=lambda r: r.vocab)
            style = style_of(_LOGITS.get(logits, logits))
            vocabs = [row.vocab for row in mine]
            drawn[logits] = axes.plot(vocabs, [row.select.median_us for row in mine], label=logits, **style)[0]
            axes.plot(vocabs, [row.stock.median_us for row in mine], **style, **UPSTREAM)
        axes.set_title(chain, fontsize="medium")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        ticks_in_numbers(axes.xaxis)
        axes.set_xlabel("tokens in the vocabulary")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("µs")
    ticks_in_numbers(panels[0].yaxis)
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=len(drawn), fontsize="small")
    save(figure, path)


_LOGITS = {"gauss": "K4V4", "peaked": "K1V1", "flat": "K2V2", "recorded": "f16"}  # whose colours they have


def plot_evaluation(result: evaluate.Result, path: Path) -> None:
    """Write the plot as SVG or PNG, by suffix.

    A cache is a line: its dot is at the bits of the codes, its bar at those of the whole cache with window and sink.
    f16, the reference, has divergence 0 and is not on the logarithmic scale.
    """
    figure = new_figure(9, 5.5)
    axes = figure.subplots()
    rows = [row for row in result.rows if (row.type_k, row.type_v) != ("f16", "f16")]
    for row in rows:
        style = style_of(row.cache)
        x = [row.bpw, row.bits_in_cache or row.bpw]
        dash = "--" if row.type_k == row.type_v else style.get("linestyle", "-")
        axes.plot(x, [row.kld_mean] * 2, dash, marker="|", color=style["color"], label=row.cache)
        axes.plot(x[:1], [row.kld_mean], marker=style["marker"], color=style["color"])
    if all(row.kld_mean > 0 for row in rows):
        axes.set_yscale("log")
    _label_evaluation_axes(axes, result)
    axes.margins(y=0.12)
    place_labels(axes, [(row.cache, row.bpw, row.kld_mean, style_of(row.cache)["color"]) for row in rows])
    save(figure, path)


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
    figure = new_figure(11, 3.6 * len(result.sections))
    figure.suptitle(" ".join(result.argv), fontsize="medium")
    panels = figure.subplots(len(result.sections), 2, squeeze=False)
    for section, (operations, layers) in zip(result.sections, panels, strict=True):
        count, per = (section.tokens, "token") if section.tokens else (section.graphs, "graph")
        title = f"{section.kind}, {section.threads} thread(s): {section.ms / count:.3f} ms per {per}"
        _draw_parts(operations, _parts(section, count), title, f"ms per {per}")
        rows = [(row.name, row.ms / count, row.wait) for row in section.layers]
        _draw_parts(layers, rows, "layers", f"ms per {per}")
    save(figure, path)


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
