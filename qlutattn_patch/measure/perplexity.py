"""Run llama-perplexity and parse its output."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qlutattn_patch.measure.caches import Cache
from qlutattn_patch.system import console, process
from qlutattn_patch.system.errors import ExpectedError

TARGET = "llama-perplexity"
_TILE = 128  # tokens
_TAIL = 30
_LEAST = 100  # tokens; llama-perplexity computes no statistics of fewer
_PREFIX = re.compile(r"^[\d.]+ ([A-Z]) ")  # time and level of a log line
_NUMBER = r"(-?(?:\d[\d.]*(?:e[+-]?\d+)?|nan|inf))"
_EXACT = rf" *: *{_NUMBER}"
_FIGURES = {  # patterns in the report: the figure, and its uncertainty if any
    "ppl": rf"Mean PPL\(Q\){_EXACT} ± *{_NUMBER}",
    "dppl": rf"Mean PPL\(Q\)-PPL\(base\){_EXACT} ± *{_NUMBER}",
    "kld_mean": rf"Mean +KLD{_EXACT} ± *{_NUMBER}",
    "kld_median": rf"Median +KLD{_EXACT}",
    "kld_p999": rf"99\.9% +KLD{_EXACT}",
    "same_top": rf"Same top p{_EXACT} ± *{_NUMBER} *%",
}


@dataclass(frozen=True)
class Tool:
    """A built llama-perplexity, and the settings that all its runs share."""

    program: Path
    model: Path
    n_ctx: int
    threads: int | None

    def run(
        self, arguments: Sequence[str | Path], on_line: Callable[[str], None], ubatch: int = _TILE
    ) -> tuple[int, list[str]]:
        """Run it; `on_line` gets lines without time and level. Returns the exit status and all lines with level."""
        lines: list[str] = []

        def take(line: str) -> None:
            lines.append(_PREFIX.sub(r"\1 ", line))
            on_line(_PREFIX.sub("", line))

        argv: list[str | Path] = [self.program, "-m", self.model, "-c", str(self.n_ctx), "-b", str(self.n_ctx)]
        argv += ["-ub", str(min(ubatch, self.n_ctx)), "-fa", "on", "-fit", "off"]
        argv += ["-t", str(self.threads)] if self.threads else []
        return process.follow([*argv, *arguments], take), lines


@dataclass(frozen=True)
class Context:
    """What the tool reports about a context with a cache."""

    n_vocab: int
    n_ctx_train: int
    cache_bytes: int | None
    window: int | None  # of a packed cache
    sink: int | None

    @property
    def ubatch(self) -> int:
        """The largest micro-batch for which each query sees the same packed tokens as in generation.

        A batch stays f16 until the next one, and generation packs a tile when there is one tile more than window and
        sink: batches must end there.
        """
        return math.gcd(_TILE, (self.window or 0) + (self.sink or 0))


@dataclass(frozen=True)
class Refusal:
    """The tool's message when it refuses a context with a cache."""

    cache: Cache
    why: str


def probe(tool: Tool, cache: Cache, empty: Path) -> Context | Refusal:
    """Have the tool create its context on an empty text, so that nothing is computed."""
    status, lines = tool.run([*cache.arguments, "-f", empty, "--no-warmup", "-lv", "4"], lambda _: None)
    text = "\n".join(lines)
    if "tokenizes to only" not in text:
        return Refusal(cache, _why(status, lines))
    found = [re.search(rf"{name} += (\d+)", text) for name in ("n_vocab", "n_ctx_train")]
    n_vocab, n_ctx_train = (int(match[1]) if match else 0 for match in found)
    if not n_vocab:
        raise _unexpected("does not report the size of the vocabulary", lines)
    kept = re.search(r"for (\d+) sinks, a window of (\d+)", text)
    sink, window = (int(kept[1]), int(kept[2])) if kept else (None, None)
    return Context(n_vocab, n_ctx_train, _cache_bytes(text), window, sink)


def base_bytes(n_vocab: int, n_ctx: int, chunks: int) -> int:
    """The size of the file of f16 logits: a header, the tokens, and 16 bits per logit of each chunk's second half."""
    return 20 + 4 * n_ctx * chunks + 2 * chunks * scored(n_ctx) * (2 * ((n_vocab + 1) // 2) + 4)


def scored(n_ctx: int) -> int:
    """The number of scored tokens of a chunk: those of its second half that have a successor."""
    return n_ctx - 1 - n_ctx // 2


def write_base(
    tool: Tool,
    text: Path,
    chunks: int | None,
    logits: Path,
    on_size: Callable[[int], None],
    moved: Callable[[int, int, str], None],
) -> int:
    """Write an f16 cache's logits and return the number of chunks; `on_size` is called with it beforehand."""
    total = 0

    def take(line: str) -> None:
        nonlocal total
        if at := re.search(r"calculating perplexity over (\d+) chunks", line):
            total = int(at[1])
            on_size(total)
        elif at := re.match(r" *(\d+)  [\d.]+  ", line):
            moved(int(at[1]) // tool.n_ctx + 1, total, "f16")

    arguments: list[str | Path] = ["-f", text, "--ppl-output-type", "1", "--kl-divergence-base", logits]
    status, lines = tool.run([*arguments, *(["--chunks", str(chunks)] if chunks else [])], take)
    output = "\n".join(lines)
    if short := re.search(r"tokenizes to only (\d+) tokens", output):
        raise ExpectedError(
            f"{text} has only {short[1]} tokens: a context of {tool.n_ctx} needs {2 * tool.n_ctx}.",
            "name a longer text, or a smaller --ctx",
        )
    if status != 0 or "Final estimate: PPL" not in output:
        raise _unexpected(f"ended with exit status {status} and no perplexity of the f16 cache", lines)
    return total


def compare(tool: Tool, cache: Cache, context: Context, logits: Path, moved: Callable[[int], None]) -> dict[str, float]:
    """The figures of a cache against the logits of f16; an uncertainty is named as its figure, with `_err`."""

    def take(line: str) -> None:
        if at := re.match(r" *(\d+) +[\d.]+ ±", line):
            moved(int(at[1]))

    arguments: list[str | Path] = [*cache.arguments, "--kl-divergence", "--kl-divergence-base", logits]
    status, lines = tool.run(arguments, take, context.ubatch)
    if status != 0:
        raise _unexpected(f"ended with exit status {status} while comparing {cache.name}", lines)
    return figures(lines, cache.name)


def figures(lines: Sequence[str], name: str) -> dict[str, float]:
    """The figures of a comparison's final report."""
    output = "\n".join(lines)
    found: dict[str, float] = {}
    for figure, pattern in _FIGURES.items():
        match = re.search(rf"^{pattern}", output, re.MULTILINE)
        values = [float(value) for value in match.groups()] if match else []
        if not values or not math.isfinite(values[0]):
            raise _unexpected(f"reports {f'{match[0]!r}' if match else f'no {figure}'} of {name}", lines)
        found[figure] = values[0]
        # The root of a difference: nan where rounding makes that negative, so it is about 0.
        found |= {f"{figure}_err": value if math.isfinite(value) else 0.0 for value in values[1:]}
    return found


def check_count(chunks: int, n_ctx: int) -> None:
    """Refuse too few tokens for statistics."""
    count = chunks * scored(n_ctx)
    if count < _LEAST:
        raise ExpectedError(
            f"{chunks} chunk(s) of {n_ctx} tokens have {count} scored tokens; statistics need {_LEAST}.",
            "name a longer text, more --chunks or a larger --ctx",
        )


def _cache_bytes(text: str) -> int | None:
    """The size of all layers' caches in bytes: reported in bytes if packed, otherwise in MiB with two digits."""
    parts = re.findall(r": size = +([\d.]+) MiB(?:: f16 part (\d+) bytes, packed part (\d+) bytes)?", text)
    sizes = [int(f16) + int(packed) if f16 else round(float(size) * 2**20) for size, f16, packed in parts]
    return sum(sizes) if sizes else None


def _why(status: int, lines: Sequence[str]) -> str:
    """The first line that looks like an error; later ones follow from it."""
    causes = [line for line in lines if re.match(r"E |error|.*GGML_ASSERT|terminate called", line)]
    message = next(iter(causes), next((line for line in reversed(lines) if line.strip()), f"exit status {status}"))
    return re.sub(r"^E (?:[\w ]+: +)?|^error: ", "", message).rstrip(". ")


def _unexpected(what: str, lines: Sequence[str]) -> ExpectedError:
    console.show(lines[-_TAIL:])
    return ExpectedError(
        f"llama-perplexity {what}; its output is above.",
        "qlutattn status, to check the tree",
    )
