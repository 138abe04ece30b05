"""`qlutattn bench`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from qlutattn_patch.commands import complete
from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import json_option, plot_option, preset_option, tree_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.system import console
from qlutattn_patch.system.errors import UsageError
from qlutattn_patch.workspace import Workspace


@click.command(
    cls=Command,
    examples=[
        ("qlutattn bench --quick", "A first look:"),
        ("qlutattn bench --work decode --keys 8192,32768 --types f16,K4V4,K2V2", "Decoding, compared with f16:"),
        (
            "qlutattn bench --work decode --threads 1 --plot build/decode.svg",
            "All lengths, with a plot:",
        ),
        ("qlutattn bench --work sampling --vocab 151936", "Drawing tokens, beside llama.cpp's own code:"),
    ],
)
@preset_option
@click.option("--work", metavar="LIST", help="Some of decode, prefill and pack (default: all); or sampling.")
@click.option("--keys", metavar="LIST", help="Numbers of keys (default: 512 to 131072, prefill to 8192).")
@click.option("--queries", metavar="LIST", help="Queries at once in decode, as for drafted tokens (default: 1).")
@click.option("--threads", metavar="LIST", help="Numbers of threads (default: 1 and all).")
@click.option("--heads", metavar="Q/KV/D", help="Query heads, key/value heads, head size (default: 32/8/128).")
@click.option(
    "--layout",
    type=click.Choice(["heads", "tokens"]),
    help="Memory layout of f16, q8_0 and q4_0: contiguous per head (default), or per token, as in llama.cpp.",
)
@click.option(
    "--types",
    metavar="LIST",
    shell_complete=complete.list_of(complete.bench_caches),
    help="Caches such as f16, q8_0, q4_0, K8V8, K4V2, K4V4+w512, w512, f16+int8.",
)
@click.option("--vocab", metavar="LIST", help="Of sampling: numbers of tokens (default: 32000 to 262144).")
@click.option("--rows", metavar="FILE", help="Of sampling: also logits that bench_sampling --record wrote.")
@click.option("--filter", metavar="REGEX", help="Run only the rows whose id matches, such as decode-8192-t2-K4V4.")
@click.option("--cold", is_flag=True, help="Flush the CPU caches before each run (default: warm caches).")
@click.option("--quick", is_flag=True, help="Run a few short rows only.")
@click.option(
    "--instructions", is_flag=True, help="Also count instructions with callgrind, on one thread (default: 512 keys)."
)
@plot_option
@json_option
@tree_option
def command(
    preset: str, instructions: bool, plot: Path | None, as_json: bool, tree: Path | None, **choice: str | bool | None
) -> None:
    """Time attention over packed keys and values, or sampling, interleaved with upstream's."""
    from qlutattn_patch.measure import bench, plot_style, plots, sampling

    is_sampling = choice["work"] == sampling.WORK
    _check_choice(choice | {"instructions": instructions}, is_sampling)
    kind = sampling.Settings if is_sampling else bench.Settings
    given = {name: value for name, value in choice.items() if name in kind.__dataclass_fields__}
    if plot:
        plot_style.check(plot)
    workspace = Workspace.find(tree)
    if is_sampling:
        drawn = sampling.bench_sampling(workspace, preset, sampling.Settings(**given))  # type: ignore[arg-type]
        _print(drawn, sampling.COLUMNS, sampling.RIGHT, sampling.GROUPS, as_json)
        if plot:
            plots.plot_sampling(drawn, plot)
        return
    timed = bench.bench(workspace, preset, bench.Settings(**given), instructions)  # type: ignore[arg-type]
    if plot:
        plots.plot_bench(timed, plot)
    _print(timed, timed.columns, bench.RIGHT, bench.GROUPS, as_json)


def _check_choice(choice: dict[str, str | bool | None], is_sampling: bool) -> None:
    """Refuse options of the other kind of work."""
    own = (
        ("vocab", "rows")
        if not is_sampling
        else ("keys", "queries", "threads", "heads", "layout", "types", "cold", "instructions")
    )
    for name in own:
        if choice[name]:
            what = "sampling takes no" if is_sampling else "only sampling takes"
            raise UsageError(
                f"{what[0].upper()}{what[1:]} --{name}.", "qlutattn bench --work sampling --vocab 32000,151936"
            )


def _print(result: Any, columns: Sequence[str], right: Sequence[str], groups: int, as_json: bool) -> None:
    if as_json:
        document(True, result)
        return
    console.out_table(columns, result.table(), right=right, groups=groups)
    for line in result.summary():
        console.out(line)
