"""Run bench_sampling, and compute ratios and a table from its times."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from qlutattn_patch.building import cmake, results
from qlutattn_patch.building.presets import preset as preset_named
from qlutattn_patch.measure.bench import run_for_results, warn_if_busy
from qlutattn_patch.measure.documents import OwnSampling, SamplingDocument, SamplingRow
from qlutattn_patch.system import records
from qlutattn_patch.system.cpu import cpu_name
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.workspace import Workspace

WORK = "sampling"
TARGET = "bench_sampling"
COLUMNS = ("logits", "vocab", "chain", "kept", "µs", "upstream µs", "speed-up", "different")
RIGHT = ("vocab", *COLUMNS[3:])
GROUPS = 2


@dataclass(frozen=True)
class Settings:
    """What to time; None is bench_sampling's default."""

    vocab: str | None = None
    rows: str | None = None
    filter: str | None = None
    quick: bool = False

    @property
    def arguments(self) -> list[str]:
        """The settings as arguments of bench_sampling."""
        given = [(f"--{name}", getattr(self, name)) for name in ("vocab", "rows", "filter")]
        return [
            *(word for name, value in given if value is not None for word in (name, value)),
            *["--quick"] * self.quick,
        ]


class Result(SamplingDocument, frozen=True):
    """The result of a run, with its table and summary."""

    def table(self) -> list[list[str]]:
        """One line per row, with an empty line between the logits and vocabularies."""
        lines: list[list[str]] = []
        for before, row in zip([None, *self.rows], self.rows, strict=False):
            if before and (before.logits, before.vocab) != (row.logits, row.vocab):
                lines.append([""] * len(COLUMNS))
            times = [f"{row.select.median_us:.1f}", f"{row.stock.median_us:.1f}", f"{row.speedup:.1f}"]
            different = f"{row.different} of {row.tokens}"
            lines.append([row.logits, str(row.vocab), row.chain, str(row.kept), *times, different])
        return lines

    def summary(self) -> list[str]:
        """What all rows have in common, as text."""
        return [f"{self.cpu}; {' '.join(self.isa)}; kernel {self.kernel}"]


def bench_sampling(workspace: Workspace, preset: str, settings: Settings) -> Result:
    """Build bench_sampling if needed and run it."""
    if preset_named(preset).is_cross:
        raise ExpectedError(
            f"What the preset '{preset}' builds runs in an emulator here, so its times are meaningless.",
            "qlutattn bench --work sampling --preset native",
        )
    program = cmake.build(workspace, preset, (TARGET,)).bin / TARGET
    warn_if_busy()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=workspace.build_dir(preset)) as folder:
        file = Path(folder) / "sampling.json"
        own = run_for_results(program, settings.arguments, file, OwnSampling, "qlutattn bench --work sampling --quick")
    result = result_of(own, preset, cpu_name())
    kept = {"arguments": ["--work", WORK, *settings.arguments], **records.plain(result)}
    results.keep(workspace, preset, results.SAMPLING, kept, settings.quick or settings.filter is not None)
    return result


def result_of(own: OwnSampling, preset: str, cpu: str) -> Result:
    """Add ratios to bench_sampling's results."""
    rows = [
        SamplingRow(**structs.asdict(row), speedup=round(row.stock.median_us / row.select.median_us, 5))
        for row in own.rows
    ]
    return Result("sampling", cpu, own.isa, own.build, preset, own.kernel, rows)
