"""Evaluate KV caches on a model: llama-perplexity's divergence from f16, for each cache of a list."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlutattn_patch.building import cmake, results
from qlutattn_patch.building.presets import preset as preset_named
from qlutattn_patch.measure import caches, perplexity
from qlutattn_patch.measure.caches import JUDGED, Cache
from qlutattn_patch.measure.documents import EvalDocument, EvalRow
from qlutattn_patch.measure.perplexity import Context, Refusal, Tool
from qlutattn_patch.system import console, records
from qlutattn_patch.system.errors import ExpectedError, UsageError
from qlutattn_patch.templates.formats import F16_BITS, load_formats
from qlutattn_patch.workspace import Workspace

COLUMNS = (
    "cache",
    "window",
    "sink",
    "bits",
    "MiB",
    "bits, all",
    "PPL",
    "ΔPPL",
    "mean KLD",
    "median",
    "99.9 %",
    "same top",
)
RIGHT = COLUMNS[1:]
_F16 = Cache("f16", "f16", "f16", F16_BITS)


@dataclass(frozen=True)
class Settings:
    """What to evaluate, and how; None is llama.cpp's default."""

    model: Path
    text: Path
    n_ctx: int = 1024
    types: str = JUDGED
    window: int | None = None
    sink: int | None = None
    chunks: int | None = None
    threads: int | None = None

    @property
    def arguments(self) -> list[str]:
        """The settings as arguments of qlutattn eval."""
        words = ["--model", str(self.model), "--text", str(self.text), "--ctx", str(self.n_ctx), "--types", self.types]
        named = (("kv-window", self.window), ("kv-sink", self.sink), ("chunks", self.chunks), ("threads", self.threads))
        return words + [word for name, value in named if value is not None for word in (f"--{name}", str(value))]


class Result(EvalDocument, frozen=True):
    """The result of a run, with its table and summary."""

    def table(self) -> list[list[str]]:
        return [
            [
                row.cache,
                _or_dash(row.window),
                _or_dash(row.sink),
                f"{row.bpw:g}",
                _or_dash(row.cache_bytes, lambda size: f"{size / 2**20:.2f}"),
                _or_dash(row.bits_in_cache, lambda bits: f"{bits:.2f}"),
                f"{row.ppl:.4f} ± {row.ppl_err:.4f}",
                f"{row.dppl:+.4f} ± {row.dppl_err:.4f}",
                f"{row.kld_mean:.6f} ± {row.kld_mean_err:.6f}",
                f"{row.kld_median:.6f}",
                f"{row.kld_p999:.4f}",
                f"{row.same_top:.2f} %",
            ]
            for row in self.rows
        ]

    def summary(self) -> list[str]:
        """What all rows have in common, as text."""
        return [
            f"{self.model}: {self.tokens} tokens scored, the second halves of {self.chunks} chunks of {self.n_ctx}",
            "bits: of codes and scales; MiB and bits, all: the whole cache as allocated for one sequence of"
            f" {self.n_ctx} tokens, window and sink included",
        ]


def evaluate(workspace: Workspace, preset: str, settings: Settings) -> Result:
    """Build llama-perplexity if needed, write the logits of an f16 cache, and compare every other cache with them."""
    if preset_named(preset).is_cross:
        raise ExpectedError(
            f"What the preset '{preset}' builds runs in an emulator here, which is too slow for a model.",
            "qlutattn eval --preset native",
        )
    types = load_formats(workspace.templates / "formats.toml").types
    asked = caches.parse(settings.types, types, settings.window, settings.sink)
    _check_file(settings.model, "--model")
    _check_file(settings.text, "--text")
    program = cmake.build(workspace, preset, (perplexity.TARGET,)).bin / perplexity.TARGET
    tool = Tool(program, settings.model, settings.n_ctx, settings.threads)
    with tempfile.TemporaryDirectory(prefix="eval-", dir=workspace.build_dir(preset)) as folder:
        f16, contexts = _contexts(tool, asked, Path(folder) / "empty.txt")
        pairs = list(zip(asked, contexts, strict=True))
        chunks, found = _judge(tool, settings, pairs, f16, Path(folder) / "f16.logits")
    result = result_of(settings, chunks, f16, [(*pair, one) for pair, one in zip(pairs, found, strict=True)])
    kept = {"arguments": settings.arguments, **records.plain(result)}
    results.keep(workspace, preset, results.EVAL, kept, inputs=(settings.model, settings.text))
    return result


def result_of(
    settings: Settings, chunks: int, f16: Context, judged: Sequence[tuple[Cache, Context, Mapping[str, float]]]
) -> Result:
    """The result, from the tool's report of each cache."""
    rows = []
    for cache, context, found in judged:
        share = context.cache_bytes / f16.cache_bytes if context.cache_bytes and f16.cache_bytes else None
        bits = None if share is None else round(share * F16_BITS, 4)
        asked = {"cache": cache.name, "type_k": cache.type_k, "type_v": cache.type_v}
        kept = {"window": context.window, "sink": context.sink, "ubatch": context.ubatch}
        size = {"bpw": cache.bpw, "cache_bytes": context.cache_bytes, "bits_in_cache": bits}
        rows.append(records.typed({**asked, **kept, **size, **found}, EvalRow))
    tokens = chunks * perplexity.scored(settings.n_ctx)
    return Result(str(settings.model), str(settings.text), settings.n_ctx, chunks, tokens, rows)


def _contexts(tool: Tool, asked: Sequence[Cache], empty: Path) -> tuple[Context, list[Context]]:
    """The context of each cache, without computing anything; reports all caches that the tool refuses."""
    empty.write_bytes(b"")
    f16 = perplexity.probe(tool, _F16, empty)
    if isinstance(f16, Refusal):
        raise ExpectedError(
            f"llama-perplexity cannot use {tool.model} with --ctx {tool.n_ctx}: {f16.why}.",
            "name another model or --ctx",
        )
    if tool.n_ctx > f16.n_ctx_train:
        console.warn(f"the model was trained for {f16.n_ctx_train} tokens, and --ctx is {tool.n_ctx}")
    answers = [perplexity.probe(tool, cache, empty) for cache in asked]
    refused = [answer for answer in answers if isinstance(answer, Refusal)]
    if refused:
        names = ", ".join(answer.cache.name for answer in refused)
        kept = [cache.name for cache in asked if all(one.cache != cache for one in refused)]
        raise ExpectedError(
            f"llama-perplexity refuses {names}: {refused[0].why}.",
            f"qlutattn eval with --types {','.join(kept)}" if kept else "qlutattn status, to see the state of the tree",
        )
    return f16, [answer for answer in answers if isinstance(answer, Context)]


def _judge(
    tool: Tool, settings: Settings, asked: Sequence[tuple[Cache, Context]], f16: Context, logits: Path
) -> tuple[int, list[dict[str, float]]]:
    size = 0

    def on_size(chunks: int) -> None:
        nonlocal size
        perplexity.check_count(chunks, settings.n_ctx)
        size = perplexity.base_bytes(f16.n_vocab, settings.n_ctx, chunks)
        free = shutil.disk_usage(logits.parent).free
        if size > free:
            raise ExpectedError(
                f"The logits of {chunks} chunks take {_size(size)}, and {logits.parent} has room for {_size(free)}.",
                f"qlutattn eval with --chunks {max(1, int(chunks * free / size * 0.9))}",
            )
        console.step(f"the logits of {chunks} chunks take {_size(size)} in {logits.parent} until the end of this run")

    with console.progress("writing the logits of the f16 cache") as moved:
        chunks = perplexity.write_base(tool, settings.text, settings.chunks, logits, on_size, moved)
    if logits.stat().st_size != size:
        raise ExpectedError(
            f"The file of logits has {logits.stat().st_size} bytes instead of {size}.",
            "check whether the disk is full, or use fewer --chunks",
        )
    found = []
    with console.progress("judging") as moved:
        for at, (cache, context) in enumerate(asked):

            def chunk(done: int, at: int = at, name: str = cache.name) -> None:
                moved(at * chunks + done, len(asked) * chunks, name)

            found.append(perplexity.compare(tool, cache, context, logits, chunk))
            console.step(_format_results(cache, found[-1]))  # hours may pass until the table
    return chunks, found


def _format_results(cache: Cache, found: Mapping[str, float]) -> str:
    figures = f"mean KLD {found['kld_mean']:.6f}, 99.9 % {found['kld_p999']:.4f}, same top {found['same_top']:.2f} %"
    return f"{cache.name}: {figures}, ΔPPL {found['dppl']:+.4f} ± {found['dppl_err']:.4f}"


def _check_file(path: Path, option: str) -> None:
    if not path.is_file():
        raise UsageError(f"There is no file {path} for {option}.", "qlutattn eval --help")
    if path.stat().st_size == 0:
        raise UsageError(f"The file {path} for {option} is empty.", "name another file")


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _or_dash(value: Any, shown: Any = str) -> str:
    return "-" if value is None else str(shown(value))
