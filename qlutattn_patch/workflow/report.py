"""One HTML page of a machine and a tree: what was built from what, each build's results, and what repeats them."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import qlutattn_patch
from qlutattn_patch.building import doctor, results
from qlutattn_patch.building.results import StoredResult
from qlutattn_patch.measure import bench, evaluate, sampling
from qlutattn_patch.measure.documents import BenchRow
from qlutattn_patch.proof import align
from qlutattn_patch.proof.documents import AlignDocument
from qlutattn_patch.system import cpu, process, records
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.files import write_atomically
from qlutattn_patch.templates.render import page
from qlutattn_patch.workflow import figures
from qlutattn_patch.workflow.status import Status, read_status, repeat
from qlutattn_patch.workspace import Workspace

_TEMPLATE = Path(__file__).with_name("report.html.j2")
_GIB = 2**30
_SPREAD, _FEW = 0.2, 0.05


@dataclass(frozen=True)
class Table:
    """A table; `right` names the columns of figures."""

    columns: tuple[str, ...]
    rows: list[list[str]]
    right: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shown:
    """What the page says of a result: the message in a line, plots as captions with SVGs, a table, and notes."""

    message: str
    table: Table
    figures: list[tuple[str, str]]
    notes: list[str]


@dataclass(frozen=True)
class Entry:
    """A result of a build; `shown` is None if another version of qlutattn has stored it."""

    preset: str
    kept: StoredResult
    shown: Shown | None
    stale: list[str]
    repeat: str


@dataclass(frozen=True)
class Section:
    """All results of one kind, and the command that makes the first."""

    kind: str
    title: str
    about: str
    entries: list[Entry]
    command: str


@dataclass(frozen=True)
class Kind:
    """How results of one kind are shown."""

    title: str
    about: str
    show: Callable[[dict[str, Any], str], Shown]  # from the stored result, and a name for the plots' ids


def write(workspace: Workspace, path: Path) -> None:
    """Write the page."""
    if not path.absolute().parent.is_dir():
        raise ExpectedError(f"There is no folder {path.absolute().parent} to write the report to.", "create it")
    if path.is_dir():
        raise ExpectedError(f"{path} is a folder.", f"--output {path / 'report.html'}")
    write_atomically(path, render(workspace).encode())


def render(workspace: Workspace) -> str:
    """The page's HTML."""
    status = read_status(workspace)
    context = {
        "made": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "version": qlutattn_patch.__version__,
        "command": process.shown(["qlutattn", "report", *workspace.options]),
        "machine": _machine(workspace),
        "cpu": cpu.cpu_name(),
        "tree": workspace.tree,
        "status": status,
        "origin": _origin(status),
        "patches": _patches(status),
        "builds": _builds(status),
        "sections": [_section(workspace, status, name) for name in KINDS],
        "has_plots": figures.is_available(),
        "series": figures.LIGHT_AND_DARK,
    }
    return page(_TEMPLATE.read_text(encoding="utf-8"), context)


# --- the machine and the tree


def _machine(workspace: Workspace) -> list[tuple[str, str]]:
    found = doctor.examine(workspace.home)
    rows = [
        ("processor", cpu.cpu_name()),
        ("cores", str(os.cpu_count() or "unknown")),
        ("instruction sets", " ".join(found.isa) or "unknown"),
        ("memory", _memory()),
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
    ]
    tools = [
        f"{finding.name.partition(' >=')[0]} {finding.version}"
        for finding in found.findings
        if finding.ok and finding.version and Path(finding.path).is_file()
    ]
    return [*rows, ("tools", "; ".join(tools))]


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / _GIB:.1f} GiB"
    except (AttributeError, ValueError, OSError):
        return "unknown"


def _origin(status: Status) -> list[tuple[str, str]]:
    """What the tree was made from, as in `align_attn --version`."""
    known = [
        ("llama.cpp", status.pin.commit),
        ("templates", status.templates),
        ("patches", status.series.digest if status.series else None),
        ("tree", status.now.tree),
    ]
    return [(name, value) for name, value in known if value]


def _patches(status: Status) -> Table:
    patches = status.series.patches if status.series else ()
    rows = [[patch.title, str(len(patch.files)), str(patch.upstream_lines)] for patch in patches]
    return Table(("patch", "files", "upstream lines"), rows, ("files", "upstream lines"))


def _builds(status: Status) -> Table:
    rows = [
        [build.preset, name, built.compiler, (built.origin.tree or "unknown")[:12]]
        for build in status.builds
        for name, built in build.targets.items()
    ]
    return Table(("preset", "program", "compiler", "tree"), rows)


# --- results


def _section(workspace: Workspace, status: Status, kind: str) -> Section:
    entries = [_entry(workspace, build.preset, build.results[kind]) for build in status.builds if kind in build.results]
    command = process.shown(["qlutattn", *results.COMMANDS[kind], *workspace.options])
    return Section(kind, KINDS[kind].title, KINDS[kind].about, entries, command)


def _entry(workspace: Workspace, preset: str, kept: StoredResult) -> Entry:
    try:
        result = {name: value for name, value in kept.result.items() if name != "arguments"}
        shown = KINDS[kept.kind].show(result, f"{kept.kind}-{preset}")
    except ValueError:  # an older qlutattn's
        shown = None
    stale = kept.why_stale(workspace.build_dir(preset))
    return Entry(preset, kept, shown, stale, repeat(workspace, preset, kept))


def _show_align(raw: dict[str, Any], name: str) -> Shown:
    report = align.Report(records.typed(raw, AlignDocument), "qlutattn align")
    table = Table(align.COLUMNS, report.table(), align.RIGHT)
    plots = figures.of_align(report, name) if figures.is_available() else []
    return Shown(report.verdict(), table, plots, report.failures())


def _show_bench(raw: dict[str, Any], name: str) -> Shown:
    result = records.typed(raw, bench.Result)
    message = f"{len(result.rows)} rows"
    if row := _headline(result):
        threads = f"{row.threads} thread{'s' if row.threads > 1 else ''}"
        message = f"{row.cache}: {row.vs_f16:.3g} × f16 ({row.title}, {row.n_kv} keys, {threads})"
    plots = figures.of_bench(result, name) if figures.is_available() else []
    return Shown(message, _ratios(result), plots, [*result.summary(), *_varied(result)])


def _headline(result: bench.Result) -> BenchRow | None:
    """A packed cache's row with most keys and threads: of decode before other work, of K4V4 before other caches."""
    found = [row for row in result.rows if row.vs_f16 is not None and row.kernel != "upstream" and row.work != "pack"]
    return max(
        found,
        key=lambda row: (row.work == "decode", row.cache == "K4V4", row.n_kv, row.threads, -row.n_q),
        default=None,
    )


def _varied(result: bench.Result) -> list[str]:
    """A note where times are unreliable, since other programs used the machine."""
    far = sum((row.spread or 0) > _SPREAD for row in result.rows)
    if far <= len(result.rows) * _FEW:
        return []
    return [
        f"The machine was busy: the times of {far} of {len(result.rows)} rows have an interquartile range above"
        f" {_SPREAD:.0%} of their median, so ratios are unreliable."
    ]


def _ratios(result: bench.Result) -> Table:
    """A row per group of bench's rows: the time of f16, and of each cache the speed relative to it."""
    caches = list(dict.fromkeys(row.cache for row in result.rows))
    works = list(dict.fromkeys(row.title for row in result.rows))
    groups = sorted(
        {(row.title, row.n_kv, row.threads) for row in result.rows},
        key=lambda group: (works.index(group[0]), group[2], group[1]),
    )
    cells = {(row.title, row.n_kv, row.threads, row.cache): row for row in result.rows}
    rows = [[title, str(n_kv), str(threads)] for title, n_kv, threads in groups]
    for line, group in zip(rows, groups, strict=True):
        for cache in caches:
            row = cells.get((*group, cache))
            is_time = row is not None and (cache == "f16" or row.vs_f16 is None)
            line.append("-" if row is None else _milliseconds(row.median_ms) if is_time else f"{row.vs_f16:.3g} ×")
    columns = ("work", "keys", "threads", *caches)
    return Table(columns, rows, columns[1:])


def _milliseconds(time: float) -> str:
    return f"{time:.0f} ms" if time >= 100 else f"{time:.3g} ms"


def _show_sampling(raw: dict[str, Any], name: str) -> Shown:
    result = records.typed(raw, sampling.Result)
    different, tokens = sum(row.different for row in result.rows), sum(row.tokens for row in result.rows)
    ratios = sorted(row.speedup for row in result.rows)
    speed = f"{ratios[0]:.3g} to {ratios[-1]:.3g} × llama.cpp's own code; " if ratios else ""
    message = f"{speed}{different} of {tokens} tokens differ"
    plots = figures.of_sampling(result, name) if figures.is_available() else []
    table = Table(sampling.COLUMNS, [line for line in result.table() if any(line)], sampling.RIGHT)
    return Shown(message, table, plots, result.summary())


def _show_eval(raw: dict[str, Any], name: str) -> Shown:
    result = records.typed(raw, evaluate.Result)
    packed = [row for row in result.rows if any("qlutattn" in kind for kind in (row.type_k, row.type_v))]
    row = min(packed, key=lambda row: (not row.cache.startswith("K4V4"), row.kld_mean), default=None)
    message = f"{len(result.rows)} caches"
    if row:
        message += f"; {row.cache}: mean KL divergence {row.kld_mean:.2g}, same top {row.same_top:.1f} %"
    plots = figures.of_eval(result, name) if figures.is_available() else []
    return Shown(message, Table(evaluate.COLUMNS, result.table(), evaluate.RIGHT), plots, result.summary())


KINDS = {
    results.ALIGN: Kind(
        "Correctness",
        "align_attn computes attention on packed caches and compares it with float64; numpy checks what it dumps.",
        _show_align,
    ),
    results.BENCH: Kind(
        "Speed of attention",
        "Attention and packing beside upstream's types; × is the speed relative to f16 of the same run.",
        _show_bench,
    ),
    results.SAMPLING: Kind(
        "Speed of sampling",
        "The time to draw a token, beside llama.cpp's own code, and whether both draw the same tokens.",
        _show_sampling,
    ),
    results.EVAL: Kind(
        "Quality",
        "How far a model's answers with each cache diverge from those with an f16 cache, on the same text.",
        _show_eval,
    ),
}
