"""Run align_attn, check its dump in numpy, and merge both into one report."""

from __future__ import annotations

import math
import re
import signal
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from msgspec import UnsetType, structs

from qlutattn_patch.building import results, toolchain
from qlutattn_patch.building.origin import origin_if_patched
from qlutattn_patch.building.presets import preset as preset_named
from qlutattn_patch.building.stamp import why_stale
from qlutattn_patch.proof.documents import AlignDocument, Case, Numpy, OwnResults
from qlutattn_patch.proof.dump import Verdict, check
from qlutattn_patch.system import console, process, records
from qlutattn_patch.system.errors import ExpectedError, UsageError
from qlutattn_patch.templates.formats import QuantType, load_formats
from qlutattn_patch.workspace import Workspace

_TAIL = 30


@dataclass(frozen=True)
class Report:
    """The merged result, and the command that repeats it, without --filter."""

    document: AlignDocument
    repeat: str

    @property
    def ok(self) -> bool:
        return self.document.ok

    @property
    def cases(self) -> list[Case]:
        return self.document.cases

    @property
    def faults(self) -> list[str]:
        """Failures that belong to no single case."""
        return self.document.faults

    def table(self) -> list[list[str]]:
        """A row per K and V type and kernel: the number of cases, and the worst of each measure."""
        groups: dict[tuple[str, ...], list[Case]] = defaultdict(list)
        for case in self.cases:
            groups[(case.type_k, case.type_v, case.kernel or "")].append(case)
        return [
            [
                *(short(part) for part in key),
                str(len(cases)),
                str(sum(not case.ok for case in cases)),
                _worst(error_ratio(case) for case in cases),
                _worst(case.numpy.error_over_tolerance for case in cases if case.numpy),
                _worst(case.nmse_codes for case in cases),
                _worst(case.nmse_f32 for case in cases),
            ]
            for key, cases in sorted(groups.items())
        ]

    def failures(self) -> list[str]:
        """Each failed case, with its reasons and the command that repeats it."""
        lines = [f"FAILED {fault}" for fault in self.faults]
        for case in self.cases:
            if not case.ok:
                lines += [f"FAILED {case.id}", *(f"  {why}" for why in reasons(case))]
                lines.append(f"  repeat: {self.repeat_of(case)}")
        return lines

    def repeat_of(self, case: Case) -> str:
        """The command that runs a case again."""
        return f"{self.repeat} --filter {process.shown([exactly(case.id)])}"

    def verdict(self) -> str:
        """The last line of the text output."""
        checked = sum(bool(case.numpy) for case in self.cases)
        counts = f"{self.document.passed} cases passed, {self.document.failed} failed; numpy checked {checked} of them"
        return f"{'PASS' if self.ok else 'FAIL'}  {counts}" + (f"; {'; '.join(self.faults)}" if self.faults else "")


COLUMNS = ("K", "V", "kernel", "cases", "failed", "error/tol", "numpy", "nmse codes", "nmse f32")
RIGHT = COLUMNS[3:]


def align(workspace: Workspace, preset: str, filter: str | None = None, quick: bool = False) -> Report:
    """Run the align_attn of a preset's build, and check its dump."""
    build = workspace.build_dir(preset)
    program = build / "bin" / "align_attn"
    if not program.is_file():
        raise ExpectedError(
            f"There is no align_attn in {program.parent}.",
            process.shown(["qlutattn", "build", "--preset", preset, *workspace.options]),
        )
    if reasons := why_stale(build, "align_attn", origin_if_patched(workspace)):
        again = process.shown(["qlutattn", "build", "--preset", preset, *workspace.options])
        fault = f"{program} was not run, since it is stale: {'; '.join(reasons)}; build it again: {again}"
        return Report(_merged(preset, OwnResults(ok=False, cases=[]), [], [fault]), repeat(workspace, preset))
    runner = toolchain.find_runner(preset_named(preset))
    types = load_formats(workspace.templates / "formats.toml").types
    with tempfile.TemporaryDirectory(prefix="align-", dir=build) as folder:
        own_results, dump = Path(folder) / "align.json", Path(folder) / "dump.gguf"
        argv: list[str | Path] = [*runner, program, "--json", own_results, "--dump", dump]
        argv += ["--filter", filter] if filter else []
        argv += ["--quick"] if quick else []
        lines: list[str] = []
        with console.progress(f"running align_attn ({preset})") as moved:

            def take(line: str) -> None:
                lines.append(line)
                if at := re.match(r"\[(\d+)/(\d+)\] (.*)", line):
                    moved(int(at[1]), int(at[2]), at[3])

            status = process.follow(argv, take)
        own, faults = _own_results(own_results, status, lines)
        verdicts: list[Verdict] = []
        if own.cases and not faults:
            with console.progress("checking the dump in numpy") as checked:
                verdicts, more = _verdicts(dump, types, len(own.cases), checked)
            faults += more
    faults += [] if filter or faults else _not_covered(own.cases, verdicts)
    report = Report(_merged(preset, own, verdicts, faults), repeat(workspace, preset))
    if not filter:
        results.keep(workspace, preset, results.ALIGN, report.document, part=quick)
    return report


def load_fresh(workspace: Workspace, preset: str, quick: bool) -> tuple[Report, str] | None:
    """The stored report and its time, if nothing that it depends on has changed."""
    kept = results.load_fresh(workspace, preset, results.ALIGN, part=quick)
    try:
        document = records.typed(kept.result, AlignDocument) if kept else None
    except ValueError:  # an older qlutattn's
        document = None
    return (Report(document, repeat(workspace, preset)), kept.when) if kept and document else None


def repeat(workspace: Workspace, preset: str) -> str:
    """The command that runs a build's align_attn again."""
    return process.shown(["qlutattn", "align", "--preset", preset, *workspace.options])


def exactly(case_id: str) -> str:
    """A regular expression that matches only this case's id."""
    return "^" + "".join(f"\\{c}" if c in r"\^$.|?*+()[]{}" else c for c in case_id) + "$"


def _own_results(results: Path, status: int, lines: list[str]) -> tuple[OwnResults, list[str]]:
    """align_attn's own results, and what is wrong with them."""
    nothing = OwnResults(ok=False, cases=[])
    if status == 2:
        message = next((line for line in reversed(lines) if line.strip()), "align_attn rejected its arguments")
        raise UsageError(message.removesuffix(".") + ".", "give another --filter, or none")
    if status not in (0, 1):
        console.show(lines[-_TAIL:])
        return nothing, [f"align_attn {_ending(status)}; its output is above"]
    try:
        own = records.read(results, OwnResults)
    except (OSError, ValueError) as failure:
        console.show(lines[-_TAIL:])
        why = "" if isinstance(failure, OSError) else f" ({failure})"
        return nothing, [f"align_attn ended with exit status {status} but left no results{why}; its output is above"]
    failed = sum(not case.ok for case in own.cases)
    if not own.cases:
        raise UsageError("No case of align_attn matches the filter.", "qlutattn align, without --filter")
    if (status == 0) != (failed == 0) or own.ok != (failed == 0):
        return own, [f"align_attn contradicts itself: exit status {status}, ok {own.ok}, {failed} failing cases"]
    return own, []


def _ending(status: int) -> str:
    number = -status if status < 0 else status - 128  # a shell or an emulator adds 128
    try:
        return f"was killed by the signal {signal.Signals(number).name}"
    except ValueError:
        return f"stopped with exit status {status}"


def _verdicts(
    dump: Path, types: tuple[QuantType, ...], total: int, moved: Callable[[int, int, str], None]
) -> tuple[list[Verdict], list[str]]:
    if not dump.is_file():
        return [], ["align_attn wrote no dump"]
    verdicts = []
    try:
        for verdict in check(dump, types):
            verdicts.append(verdict)
            moved(len(verdicts), total, verdict.id)
    except ExpectedError as failure:
        return verdicts, [f"the dump cannot be checked: {failure.cause}"]
    return verdicts, []


def _not_covered(cases: list[Case], verdicts: list[Verdict]) -> list[str]:
    """The types of which a full run dumped no tile for numpy."""
    used = {name for case in cases if case.n_kv_packed for name in (case.type_k, case.type_v)} - {"f16"}
    seen = {name for verdict in verdicts for name, count in verdict.tiles.items() if count}
    return [f"the dump holds no tile of {name}" for name in sorted(used - seen)]


def _merged(preset: str, own: OwnResults, verdicts: list[Verdict], faults: list[str]) -> AlignDocument:
    cases = {case.id: case for case in own.cases}
    if len(cases) != len(own.cases):
        faults = [*faults, "two cases of align_attn have the same id"]
    for verdict in verdicts:
        if verdict.id not in cases:
            faults = [*faults, f"the dump has a case '{verdict.id}' that is missing from the results"]
            continue
        case = cases[verdict.id]
        ratio = verdict.ratio if math.isfinite(verdict.ratio) else None
        numpy = Numpy(dict(verdict.tiles), ratio, verdict.worst, list(verdict.wrong))
        cases[verdict.id] = structs.replace(case, numpy=numpy, ok=case.ok and not verdict.wrong)
    failed = sum(not case.ok for case in cases.values())
    passed = len(cases) - failed
    return AlignDocument(
        ok=not failed and not faults and passed > 0,
        # the build may be older than the tree: report the build's
        upstream=own.build.upstream if own.build else None,
        series=own.build.series if own.build else None,
        build=own.build,
        preset=preset,
        isa=own.isa,
        passed=passed,
        failed=failed,
        faults=faults,
        cases=list(cases.values()),
    )


def reasons(case: Case) -> list[str]:
    """Why a case failed: align_attn's faults or measures, then numpy's."""
    found = [f"align_attn: {fault}" for fault in case.faults or ()]
    found += [f"numpy: {wrong}" for wrong in case.numpy.wrong] if case.numpy else []
    if not found:
        found.append(
            f"align_attn: largest error {case.max_abs_err}, tolerance {case.tolerance},"
            f" nmse against codes {case.nmse_codes}, against f32 {case.nmse_f32}"
        )
    return found


def error_ratio(case: Case) -> float | None:
    """A case's largest error in units of its tolerance, if it is known."""
    if isinstance(case.worst_ratio, (int, float)):  # element by element, where align_attn reports it
        return float(case.worst_ratio)
    error, tolerance = case.max_abs_err, case.tolerance
    if not isinstance(error, (int, float)) or not isinstance(tolerance, (int, float)):
        return None
    return 0.0 if error == 0 else error / tolerance if tolerance else math.inf


def _worst(values: Iterable[float | UnsetType | None]) -> str:
    known = [value for value in values if isinstance(value, (int, float))]
    return f"{max(known):.3g}" if known else "-"


def short(name: str) -> str:
    return name.removeprefix("qlutattn_").removesuffix("_128x128")
