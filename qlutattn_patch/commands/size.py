"""`qlutattn size`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qlutattn_patch.commands import complete
from qlutattn_patch.commands.command import Command
from qlutattn_patch.commands.options import json_option
from qlutattn_patch.commands.output import document
from qlutattn_patch.measure.caches import SIZED
from qlutattn_patch.system import console
from qlutattn_patch.workspace import Workspace

if TYPE_CHECKING:
    from qlutattn_patch.measure.attention_layers import Model
    from qlutattn_patch.measure.sizes import SizeDocument

_COUNT = click.IntRange(min=1)
_TOKENS = click.IntRange(min=0)


@click.command(
    cls=Command,
    examples=[
        ("qlutattn size --model M.gguf -c 32768", "What each cache takes where llama-server serves four chats:"),
        ("qlutattn size --model M.gguf -c 65536 -np 2 --types q8_0,K8V8,K4V2+w512", "Two slots, chosen caches:"),
        ("qlutattn size --shape llama-3.1-8b --shape qwen3-32b -c 32768", "Models that are not downloaded yet:"),
        ("qlutattn size --all-shapes -c 32768 --types f16,q8_0,K4V4", "All known shapes:"),
    ],
)
@click.option(
    "--model",
    "files",
    metavar="M.gguf",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A model's file, of which only the metadata is read; repeatable.",
)
@click.option(
    "--shape",
    "shapes",
    metavar="NAME",
    multiple=True,
    shell_complete=complete.one_of(complete.shapes),
    help="A well-known model instead of a file; repeatable.",
)
@click.option("--all-shapes", is_flag=True, help="All well-known models.")
@click.option(
    "-c",
    "--ctx",
    "n_ctx",
    metavar="N",
    type=_TOKENS,
    default=0,
    help="Tokens of the context (default: what the model was trained with).",
)
@click.option(
    "-np",
    "--parallel",
    "slots",
    metavar="P",
    type=_COUNT,
    help="Sequences, which share the tokens (default: llama-server's, four in one cache).",
)
@click.option("--kv-unified", "unified", is_flag=True, help="One cache for all sequences, as llama.cpp's option.")
@click.option("-ub", "--ubatch", metavar="N", type=_COUNT, help="Tokens that are computed at once (default: 512).")
@click.option(
    "--types",
    metavar="LIST",
    default=SIZED,
    shell_complete=complete.list_of(complete.caches),
    help=f"Caches such as q8_0, K4V2, K4 (keys alone), K4V4+w512 (default: {SIZED}).",
)
@click.option("--kv-window", "window", metavar="N", type=_TOKENS, help="Newest tokens kept in f16 (default: 256).")
@click.option("--kv-sink", "sink", metavar="N", type=_TOKENS, help="First tokens kept in f16 (default: 128).")
@json_option
def command(as_json: bool, **choice: object) -> None:
    """Print what each KV cache of a model would take; nothing has to be built for that."""
    from qlutattn_patch.measure.sizes import COLUMNS, RIGHT, remarks, table

    models, result = _sized(**choice)  # type: ignore[arg-type]
    if as_json:
        document(True, result)
        return
    console.out(_sequences(result))
    if len(models) > 1:
        _print_many(result)
        return
    console.out(models[0].described)
    console.out_table(COLUMNS, table(result.models[0]), right=RIGHT)
    for line in remarks(result.models[0]):
        console.out(line)


def _sized(
    files: tuple[Path, ...],
    shapes: tuple[str, ...],
    all_shapes: bool,
    n_ctx: int,
    slots: int | None,
    unified: bool,
    ubatch: int | None,
    types: str,
    window: int | None,
    sink: int | None,
) -> tuple[list[Model], SizeDocument]:
    from qlutattn_patch.measure import cache_size, caches
    from qlutattn_patch.measure.sizes import SizeDocument, sized
    from qlutattn_patch.system.errors import ExpectedError
    from qlutattn_patch.templates.formats import load_formats

    kinds = load_formats(Workspace.find().templates / "formats.toml").types
    chosen = caches.parse(types, kinds, window, sink)
    sequences, unified = (cache_size.SERVER_SLOTS, True) if slots is None else (slots, unified)
    step = ubatch or cache_size.UBATCH
    models, found = _models(files, shapes, all_shapes), []
    for model in models:
        tokens = n_ctx or model.trained
        if not tokens:
            raise ExpectedError(f"{model.name} does not say what context it was trained with.", "give -c N")
        found.append(sized(model, cache_size.Context(tokens, sequences, unified, step), chosen, kinds))
    return models, SizeDocument(sequences=sequences, unified=unified, ubatch=step, models=found)


def _models(files: tuple[Path, ...], shapes: tuple[str, ...], all_shapes: bool) -> list[Model]:
    from qlutattn_patch.measure.attention_layers import read_model
    from qlutattn_patch.measure.gguf_header import read_header
    from qlutattn_patch.measure.shapes import NAMES, shape

    names = NAMES if all_shapes else shapes
    if not files and not names:
        raise click.UsageError("Name a model with --model M.gguf, or a well-known one with --shape NAME.")
    return [
        *(read_model(read_header(path), path.name) for path in files),
        *(read_model(shape(name), name) for name in names),
    ]


def _sequences(result: SizeDocument) -> str:
    """The context in words."""
    from qlutattn_patch.measure.cache_size import SERVER_SLOTS

    tokens = sorted({model.tokens for model in result.models})
    context = f"{tokens[0]} tokens" if len(tokens) == 1 else "The context that each model was trained with"
    if result.sequences == 1:
        return f"{context}, one sequence (-np 1), -ub {result.ubatch}"
    if result.unified:
        shared = f"{context} for {result.sequences} sequences in one cache (-np {result.sequences} --kv-unified"
        is_default = result.sequences == SERVER_SLOTS
        return f"{shared}{', as llama-server without -np' if is_default else ''}), -ub {result.ubatch}"
    each = sorted({model.per_sequence for model in result.models})
    return f"{context} for {result.sequences} sequences of {each[0]} each (-np {result.sequences}), -ub {result.ubatch}"


def _print_many(result: SizeDocument) -> None:
    """A row for each model and a column for each cache."""
    from qlutattn_patch.measure.sizes import remarks, shown

    names = [row.cache for row in result.models[0].caches]
    console.out_table(["model", *names], [[m.name, *map(shown, m.caches)] for m in result.models], right=names)
    for model in result.models:
        for line in remarks(model):
            console.out(f"{model.name}: {line}")
