"""Draw an evaluation: mean divergence over bits per value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qlutattn_patch import picture
from qlutattn_patch.evaluate import Result


def plot(result: Result, path: Path) -> None:
    """Write the picture, as SVG or PNG by the file's name.

    A cache is a line: its dot is at the bits of the codes, its bar at those of the whole cache, window and sink too.
    f16 is what the others diverge from, and has no place on a logarithmic scale.
    """
    figure = picture.figure(8, 5.5)
    axes = figure.subplots()
    rows = [row for row in result.rows if (row["type_k"], row["type_v"]) != ("f16", "f16")]
    for row in rows:
        x = [row["bpw"], row["bits_in_cache"] or row["bpw"]]
        same = row["type_k"] == row["type_v"]
        axes.plot(x, [row["kld_mean"]] * 2, "--" if same else "-", marker="|", label=row["cache"])
        axes.plot(x[:1], [row["kld_mean"]], "o", color=axes.lines[-1].get_color())
        beside = (6, -3) if same else (4, 4)
        axes.annotate(row["cache"], (x[0], row["kld_mean"]), beside, textcoords="offset points", fontsize="small")
    if all(row["kld_mean"] > 0 for row in rows):
        axes.set_yscale("log")
    _name(axes, result)
    picture.save(figure, path)


def _name(axes: Any, result: Result) -> None:
    made = result.json
    axes.set_title(
        f"{Path(made['model']).name}, {made['tokens']} tokens in contexts of {made['n_ctx']}", fontsize="medium"
    )
    axes.set_xlabel("bits per value: ● codes and scales, | the whole cache with window and sink")
    axes.set_ylabel("mean KL divergence from f16")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
