"""Run bench_attn, and compute ratios and a table from its times."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from msgspec import UNSET, structs

from qlutattn_patch.building import cmake, results
from qlutattn_patch.building.presets import preset as preset_named
from qlutattn_patch.measure.caches import check_timed
from qlutattn_patch.measure.documents import BenchDocument, BenchRow, OwnResults, TimedRow
from qlutattn_patch.system import console, process, records
from qlutattn_patch.system.cpu import cpu_name
from qlutattn_patch.system.errors import ExpectedError, UsageError
from qlutattn_patch.system.records import Versioned
from qlutattn_patch.templates.formats import load_formats
from qlutattn_patch.workspace import Workspace

TARGET = "bench_attn"
Own = TypeVar("Own", bound=Versioned)
_TIMES = ("median ms", "min ms", "spread", "× f16", "of floor", "of peak")
COLUMNS = ("work", "keys", "threads", "cache", "kernel", *_TIMES)
RIGHT = ("keys", "threads", *_TIMES, "instructions")
GROUPS = 3
_TAIL = 30
_BUSY = 0.5  # load per core above which times are unreliable
_SMALL = "512"  # default number of keys when counting instructions


@dataclass(frozen=True)
class Settings:
    """What to time; None is bench_attn's default."""

    work: str | None = None
    keys: str | None = None
    queries: str | None = None
    threads: str | None = None
    heads: str | None = None
    layout: str | None = None
    types: str | None = None
    filter: str | None = None
    cold: bool = False
    quick: bool = False

    @property
    def arguments(self) -> list[str]:
        """The settings as arguments of bench_attn and of qlutattn bench."""
        named = ("work", "keys", "queries", "threads", "heads", "layout", "types", "filter")
        given = [(f"--{name}", getattr(self, name)) for name in named]
        flags = [f"--{name}" for name in ("cold", "quick") if getattr(self, name)]
        return [*(word for name, value in given if value is not None for word in (name, value)), *flags]


class Result(BenchDocument, frozen=True):
    """The result of a run, with its table and summary."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (*COLUMNS, "instructions") if any(row.instructions for row in self.rows) else COLUMNS

    def table(self) -> list[list[str]]:
        """One line per row, with an empty line between groups."""
        lines: list[list[str]] = []
        for before, row in zip([None, *self.rows], self.rows, strict=False):
            if before and _group(before) != _group(row):
                lines.append([""] * len(self.columns))
            cells = [row.title, str(row.n_kv), str(row.threads), row.cache, row.kernel]
            cells += [f"{row.median_ms:.3f}", f"{row.min_ms:.3f}", _percent(row.spread)]
            cells.append("-" if row.vs_f16 is None else f"{row.vs_f16:#.3g}")
            cells += [_percent(row.vs_floor), _percent(row.vs_peak)]
            cells += [] if row.instructions is UNSET else [f"{row.instructions:,}"]
            lines.append(cells)
        return lines

    def summary(self) -> list[str]:
        """What all rows have in common, as text."""
        rates = [
            f"{rate.threads} thread(s): read {rate.read_gbps:.1f} GB/s, memcpy {rate.memcpy_gbps:.1f} GB/s"
            for rate in self.bandwidth
        ]
        run = f"{self.caches} caches, stock types by {self.layout}"
        rates += [
            f"{peak.threads} thread(s): multiply-adds of int8 {peak.int8_gmacs:.0f} 10⁹/s, of f32 {peak.f32_gmacs:.0f}"
            for peak in self.peak
        ]
        return [f"{self.cpu}; {' '.join(self.isa)}; {run}", "; ".join(rates)]


def bench(workspace: Workspace, preset: str, settings: Settings, instructions: bool = False) -> Result:
    """Build bench_attn if needed and run it; `instructions` also counts them with callgrind, on one thread."""
    if preset_named(preset).is_cross:
        raise ExpectedError(
            f"What the preset '{preset}' builds runs in an emulator here, so its times are meaningless.",
            "qlutattn bench --preset native",
        )
    if settings.types is not None:
        check_timed(settings.types, load_formats(workspace.templates / "formats.toml").types)
    valgrind = process.require("valgrind", "install valgrind, or leave out --instructions") if instructions else None
    if valgrind:
        settings = replace(settings, keys=settings.keys or _SMALL, threads="1")
    program = cmake.build(workspace, preset, (TARGET,)).bin / TARGET
    warn_if_busy()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=workspace.build_dir(preset)) as folder:
        file = Path(folder) / "bench.json"
        own = run_for_results(program, settings.arguments, file, OwnResults, "qlutattn bench, with fewer --keys")
        if valgrind:
            with console.progress("counting instructions") as moved:
                for at, row in enumerate(own.rows):
                    moved(at, len(own.rows), row.id)
                    counted = count(valgrind, program, settings, row.id, Path(folder) / "callgrind.out")
                    own.rows[at] = structs.replace(row, instructions=counted)
    result = result_of(own, preset, cpu_name())
    part = settings.quick or settings.filter is not None
    kept = {"arguments": settings.arguments, **records.plain(result)}
    results.keep(workspace, preset, results.BENCH, kept, part)
    return result


def result_of(own: OwnResults, preset: str, cpu: str) -> Result:
    """Add ratios to bench_attn's results: to f16 of the same group, and to the row's memory floor and peak."""
    f16 = {_group(row): row.median_ms for row in own.rows if row.cache == "f16"}
    rows = [
        BenchRow(
            **structs.asdict(row),
            vs_f16=_ratio(f16.get(_group(row)), row.median_ms),
            vs_floor=_ratio(row.floor_ms, row.median_ms),
            vs_peak=_ratio(row.peak_ms, row.median_ms),
        )
        for row in own.rows
    ]
    widest = max(own.bandwidth, key=lambda rate: rate.threads)
    rates = (widest.read_gbps, widest.memcpy_gbps)
    return Result(cpu, own.isa, own.build, preset, own.caches, own.layout, *rates, own.bandwidth, own.peak, rows)


def count(valgrind: Path, program: Path, settings: Settings, row: str, out: Path) -> int:
    """The number of instructions of one run of a row."""
    one = replace(settings, filter=exactly(row), cold=False, quick=False)
    argv: list[str | Path] = [valgrind, "--tool=callgrind", f"--callgrind-out-file={out}", "--collect-atstart=no"]
    argv += ["--toggle-collect=bench_attn_counted", program, "--count", *one.arguments]
    done = process.capture(argv)
    counted = out.read_text(encoding="utf-8", errors="replace") if out.is_file() else ""
    found = re.search(r"^(?:totals|summary): (\d+)", counted, re.MULTILINE)
    if done.status != 0 or not found or found[1] == "0":
        console.show((done.stdout + done.stderr).splitlines()[-_TAIL:])
        raise ExpectedError(
            f"callgrind could not count the instructions of {row}; its output is above"
            " (it does not support the newest instructions, such as AVX-512).",
            "qlutattn bench --preset avx2 --instructions",
        )
    return int(found[1])


def exactly(row: str) -> str:
    """A regular expression that matches only this row's id."""
    return "^" + row.replace("+", r"\+") + "$"


def run_for_results(program: Path, arguments: list[str], file: Path, kind: type[Own], smaller: str) -> Own:
    """Run a program that writes its results as JSON; `smaller` is what to type where it cannot do what it was asked."""
    lines: list[str] = []
    with console.progress(f"running {program.name}") as moved:

        def take(line: str) -> None:
            lines.append(line)
            if at := re.match(r"\[(\d+)/(\d+)\] (.*)", line):
                moved(int(at[1]), int(at[2]), at[3])

        status = process.follow([program, *arguments, "--json", file], take)
    message = next((line for line in reversed(lines) if line.strip()), f"{program.name} failed without a message")
    if status == 2:
        raise UsageError(message.removesuffix(".") + ".", "qlutattn bench --help")
    if status == 3:
        raise ExpectedError(message.removesuffix(".") + ".", smaller)
    try:
        if status == 0:
            return records.read(file, kind)
        why = ""
    except (OSError, ValueError) as failure:
        why = "" if isinstance(failure, OSError) else f" ({failure})"
    console.show(lines[-_TAIL:])
    raise ExpectedError(
        f"{program.name} ended with exit status {status} and left no results{why}; its output is above.",
        "qlutattn align, to check the build",
    )


def warn_if_busy() -> None:
    """Warn where other programs use the cores."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > _BUSY * cores:
        console.warn(f"this machine is busy (load {load:.1f} on {cores} cores): times will be too long and will vary")


def _group(row: TimedRow) -> tuple[str, int, int, int]:
    return row.work, row.n_kv, row.n_q, row.threads


def _ratio(other: float | None, own: float) -> float | None:
    return round(other / own, 5) if other is not None and own else None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.{0 if value >= 0.1 else 1}%}"
