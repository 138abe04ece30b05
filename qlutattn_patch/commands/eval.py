"""`qlutattn eval`."""

from __future__ import annotations

from pathlib import Path

import click

from qlutattn_patch.commands import complete
from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import json_option, plot_option, preset_option, tree_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.measure.caches import JUDGED
from qlutattn_patch.system import console
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.workspace import Workspace

_OPTIONS = {"n_ctx": "ctx", "window": "kv-window", "sink": "kv-sink"}  # parameters that are not named as their options
_COUNT = click.IntRange(min=1)


@click.command(
    cls=Command,
    examples=[
        ("qlutattn eval --model M.gguf --text T.txt", "The default caches:"),
        (
            "qlutattn eval --model M.gguf --text T.txt --types q4_0,K4V4+w512+s128,K4 --chunks 8",
            "Chosen caches, one with its own window and sink, on the first 8 chunks:",
        ),
        ("qlutattn eval --task outliers", "What outliers cost each cache, without a model:"),
    ],
)
@click.option(
    "--task",
    type=click.Choice(["text", "outliers"]),
    default="text",
    show_default=True,
    help="A model on a text, or attention on made data with outliers (in numpy).",
)
@click.option("--model", metavar="M.gguf", type=click.Path(path_type=Path), help="The model.")
@click.option("--text", metavar="T.txt", type=click.Path(path_type=Path), help="The text to evaluate.")
@click.option(
    "--ctx",
    "n_ctx",
    metavar="N",
    type=click.IntRange(min=8),
    help="Context length in tokens (default: 1024).",
)
@click.option(
    "--types",
    metavar="LIST",
    shell_complete=complete.list_of(complete.caches),
    help=f"Caches such as q8_0, K4V2, K4 (keys alone), K4V4+w512, f16+int8 (default: {JUDGED}).",
)
@click.option("--kv-window", "window", metavar="N", type=click.IntRange(min=0), help="Newest tokens kept in f16.")
@click.option("--kv-sink", "sink", metavar="N", type=click.IntRange(min=0), help="First tokens kept in f16.")
@click.option("--chunks", metavar="N", type=_COUNT, help="Evaluate at most N contexts of the text.")
@click.option("--draws", metavar="N", type=_COUNT, help="Of outliers: random draws of each kind of data (default: 8).")
@click.option("--threads", metavar="N", type=_COUNT, help="Number of threads (default: llama.cpp's).")
@preset_option
@plot_option
@json_option
@tree_option
def command(
    task: str, preset: str, plot: Path | None, as_json: bool, tree: Path | None, draws: int | None, **choice: object
) -> None:
    """Evaluate caches on a model: perplexity, and KL divergence from an f16 cache (with llama-perplexity)."""
    given = {name: value for name, value in choice.items() if value is not None}
    _check_choice(task, given | ({"draws": draws} if draws else {}) | ({"plot": plot} if plot else {}))
    if task == "outliers":
        _outliers(given.get("types"), draws, as_json)
        return
    from qlutattn_patch.measure import plot_style, plots
    from qlutattn_patch.measure.evaluate import COLUMNS, RIGHT, Settings, evaluate

    if plot:
        plot_style.check(plot)
    result = evaluate(Workspace.find(tree), preset, Settings(**given))  # type: ignore[arg-type]
    if plot:
        plots.plot_evaluation(result, plot)
    if as_json:
        document(True, result)
        return
    console.out_table(COLUMNS, result.table(), right=RIGHT)
    for line in result.summary():
        console.out(line)


def _check_choice(task: str, given: dict[str, object]) -> None:
    """Refuse options of the other task, and a text's evaluation without model or text."""
    if task == "outliers":
        if foreign := next((name for name in given if name not in ("types", "draws")), None):
            raise ExpectedError(
                f"qlutattn eval: the task outliers takes no --{_OPTIONS.get(foreign, foreign)}.",
                "qlutattn eval --task outliers",
            )
        return
    if "draws" in given:
        raise ExpectedError("qlutattn eval: only the task outliers takes --draws.", "qlutattn eval --task outliers")
    for name, example in (("model", "M.gguf"), ("text", "T.txt")):
        if name not in given:
            raise click.UsageError(f"Missing option '--{name}' ({example}).")


def _outliers(types: object, draws: int | None, as_json: bool) -> None:
    from qlutattn_patch.proof import outliers, second_axis

    caches = second_axis.parse(outliers.DEFAULT if types is None else str(types))
    with console.progress("attending") as moved:
        result = outliers.measure(caches, draws or outliers.DRAWS, moved)
    if as_json:
        document(True, result)
        return
    columns = result.columns()
    console.out_table(columns, result.table(), right=columns[1:])
    console.out(result.summary())
