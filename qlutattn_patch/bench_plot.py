"""Draw a bench: time over context length, and the ratio to f16 over context length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qlutattn_patch import picture
from qlutattn_patch.bench import Result

_UPSTREAM = {"linestyle": "--"}


def plot(result: Result, path: Path) -> None:
    """Write the picture, as SVG or PNG by the file's name: a line of two panels for each work and thread count."""
    groups = list(dict.fromkeys((row["work"], row["threads"]) for row in result.rows))
    figure = picture.figure(11, 3.8 * len(groups))
    panels = figure.subplots(len(groups), 2, squeeze=False)
    figure.suptitle(f"{result.json['cpu']}, {result.json['caches']} caches", fontsize="medium")
    for (work, threads), (times, ratios) in zip(groups, panels, strict=True):
        rows = [row for row in result.rows if (row["work"], row["threads"]) == (work, threads)]
        title = f"{work}, {threads} thread{'s' if threads > 1 else ''}"
        for cache in dict.fromkeys(row["cache"] for row in rows):
            mine = sorted((row for row in rows if row["cache"] == cache), key=lambda row: row["n_kv"])
            style = {"marker": "o", "markersize": 3, "label": cache, **(_UPSTREAM if _is_upstream(mine) else {})}
            times.plot([row["n_kv"] for row in mine], [row["median_ms"] for row in mine], **style)
            known = [row for row in mine if row["vs_f16"] is not None]
            ratios.plot([row["n_kv"] for row in known], [row["vs_f16"] for row in known], **style)
        _name(times, f"{title}: time", "ms", "log")
        _name(ratios, f"{title}: how many times as fast as f16", "× f16", "linear")
    picture.save(figure, path)


def _name(axes: Any, title: str, unit: str, scale: str) -> None:
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


def _is_upstream(rows: list[dict[str, Any]]) -> bool:
    return all(row["kernel"] == "upstream" for row in rows)
