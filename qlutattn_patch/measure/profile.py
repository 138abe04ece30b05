"""Run a tool of the tree under the graph profiler, and make tables from the trace that it leaves."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import structs

from qlutattn_patch.building import cmake
from qlutattn_patch.building.presets import PROFILE
from qlutattn_patch.measure.documents import Graphs, ProfileDocument, ProfileRow, ProfileSection, Trace, TracedRow
from qlutattn_patch.system import process
from qlutattn_patch.system.errors import ExpectedError, UsageError
from qlutattn_patch.system.files import check_place
from qlutattn_patch.workspace import Workspace

VARIABLE = "GGML_PROFILE"
COLUMNS = ("graphs", "{}", "calls", "ms", "share", "µs/call", "GB/s", "GFLOP/s", "wait")
RIGHT = COLUMNS[2:]
GROUPS = 1
_NEXT = "give it a model and something to compute; for examples: qlutattn profile --help"


class Result(ProfileDocument, frozen=True):
    """A profile, with its tables and summary."""

    def operations(self) -> list[list[str]]:
        """A line per operation, with an empty line between kinds of graphs."""
        return _table(self.sections, "operations")

    def layers(self) -> list[list[str]]:
        """A line per layer."""
        return _table(self.sections, "layers")

    def summary(self) -> list[str]:
        """What the kinds of graphs are, and where the trace is, as text."""
        lines = []
        for one in self.sections:
            per_token = f", {one.ms / one.tokens:.3f} ms per token" if one.tokens else ""
            graphs = f"{one.graphs} graph(s) of {one.tokens} token(s) on {one.threads} thread(s)"
            lines.append(
                f"{one.kind}: {graphs}, {one.ms:.1f} ms{per_token}; {_percent(one.covered)} in nodes and waits"
            )
        inside = sum(one.ms for one in self.sections)
        lines.append(f"{_percent(inside / self.wall_ms if self.wall_ms else 1)} of {self.wall_ms:.1f} ms is in graphs")
        gone = f"; the oldest {self.dropped} of {self.events} nodes are only in the sums" if self.dropped else ""
        return [*lines, f"{self.trace} opens in https://ui.perfetto.dev and chrome://tracing{gone}"]


def profile(workspace: Workspace, argv: Sequence[str], trace: Path | None = None) -> Result:
    """Build a tool of the tree with the profiler if needed, run it, and read its profile."""
    tool, *arguments = argv
    if not tool or tool.startswith("-") or Path(tool).name != tool:
        raise UsageError(f"'{tool}' is not the name of a tool of llama.cpp.", "qlutattn profile --help")
    file = (trace or workspace.build_dir(PROFILE) / "traces" / f"{tool}.json").absolute()
    _check_place(file, is_own=trace is None)
    program = cmake.build(workspace, PROFILE, (tool,)).bin / tool
    file.unlink(missing_ok=True)
    status = process.stream([program, *arguments], env={VARIABLE: str(file)})
    return result_of(_read(file, tool, status), argv, file, status)


def result_of(trace: Trace, argv: Sequence[str], file: Path, status: int) -> Result:
    """Add rates and shares to the sums of a trace."""
    own = trace.profile
    sections = [
        ProfileSection(
            **{name: getattr(section, name) for name in Graphs.__struct_fields__},
            covered=_ratio(sum(row.ms for row in section.operations), section.ms) or 0.0,
            operations=[_rated(row, section.ms) for row in section.operations],
            layers=[_rated(row, section.ms) for row in section.layers],
        )
        for section in own.sections
    ]
    return Result(list(argv), status, str(file), own.clock, own.wall_ms, own.events, own.dropped, sections)


def _check_place(file: Path, is_own: bool) -> None:
    if file.suffix != ".json":
        raise UsageError(f"'{file}' is not a file name for a trace: it must end in .json.", "--trace trace.json")
    if is_own:
        file.parent.mkdir(parents=True, exist_ok=True)
    else:
        check_place(file, "--trace")


def _read(file: Path, tool: str, status: int) -> Trace:
    """The sums in a trace; its events are not decoded."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Trace)
    except FileNotFoundError:
        ended = f"{tool} ended with exit status {status}" if status else tool
        raise ExpectedError(f"{ended} {'and ' if status else ''}computed no graph on the CPU.", _NEXT) from None
    except (OSError, ValueError) as failure:
        raise ExpectedError(
            f"{tool} ended with exit status {status} and left no readable trace in {file} ({failure}).",
            f"run it on its own, with {VARIABLE}={shlex.quote(str(file))} in the environment",
        ) from None


def _rated(row: TracedRow, all_ms: float) -> ProfileRow:
    return ProfileRow(
        **structs.asdict(row),
        share=_ratio(row.ms, all_ms) or 0.0,
        gbps=_ratio(row.bytes / 1e6, row.ms) if row.bytes else None,
        gflops=_ratio(row.flops / 1e6, row.ms) if row.flops else None,
    )


def _table(sections: Sequence[ProfileSection], part: Literal["operations", "layers"]) -> list[list[str]]:
    lines: list[list[str]] = []
    for section in sections:
        lines += [[""] * len(COLUMNS)] if lines else []
        for row in getattr(section, part):
            per_call = 1e3 * row.ms / row.calls if row.calls else 0.0
            cells = [section.kind, row.name, str(row.calls), f"{row.ms:.3f}", f"{row.share:.1%}", f"{per_call:.2f}"]
            lines.append([*cells, _rate(row.gbps), _rate(row.gflops), f"{row.wait:.1%}"])
        outside = max(section.ms * (1 - section.covered), 0.0)
        cells = [section.kind, "(start and end)", "", f"{outside:.3f}", _percent(1 - section.covered)]
        lines.append([*cells, *[""] * (len(COLUMNS) - len(cells))])
    return lines


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _percent(value: float) -> str:
    return f"{value:.1%}"
