"""The state of the tree, and the stale links of the chain from templates to results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import structs

from qlutattn_patch.building import results, toolchain
from qlutattn_patch.building.origin import Origin, origin_of
from qlutattn_patch.building.presets import PRESETS
from qlutattn_patch.building.results import StoredResult
from qlutattn_patch.building.stamp import STAMP, Built, Stamp, read_stamp, some, why_stale
from qlutattn_patch.patches.generate import generate
from qlutattn_patch.patches.receipt import PatchesReceipt, Receipt, read_patches_receipt
from qlutattn_patch.patches.series import RECEIPT as GENERATED
from qlutattn_patch.patches.series import Series, load_series
from qlutattn_patch.system import process
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.lock import locked
from qlutattn_patch.templates.formats import load_formats
from qlutattn_patch.templates.spec import of_templates
from qlutattn_patch.tree.vendor import work_of_user
from qlutattn_patch.tree.worktree import Tree, open_tree, read_tree, state_folder
from qlutattn_patch.upstream.pin import Pin, Pinned, load_pin
from qlutattn_patch.workflow.documents import (
    BuildFolder,
    Chain,
    PatchEntry,
    PatchesMade,
    ResultEntry,
    Stale,
    State,
    StatusDocument,
    Target,
    TreeMade,
)
from qlutattn_patch.workspace import Workspace

_ALIGN_TARGET = results.TARGETS[results.ALIGN]
TEMPLATES, PATCHES = "templates -> patches", "patches -> tree"
PIN_PATCHES, PIN, RECEIPT = "pin -> patches", "pin -> tree", "receipt -> files"


@dataclass(frozen=True)
class Build:
    """A build folder: its programs, and their last results."""

    preset: str
    targets: Mapping[str, Built]
    results: Mapping[str, StoredResult]
    stale: tuple[Stale, ...]


@dataclass(frozen=True)
class Status:
    """`state` is the tree's: absent, clean, applied, stale or dirty; `stale` includes the links of builds."""

    pin: Pin
    state: State
    stale: tuple[Stale, ...]
    series: Series | None
    foreign: tuple[str, ...] = ()
    templates: str = ""
    receipt: Receipt | None = None
    now: Origin = field(default_factory=Origin)
    builds: tuple[Build, ...] = ()


def read_status(workspace: Workspace) -> Status:
    """Compare templates, patches, pin, receipt, files, builds and results, without changing anything."""
    pin = load_pin(workspace.pin_file)
    series, stale = _series(workspace)
    templates = of_templates(workspace.templates)
    if workspace.is_vendored and not workspace.tree.exists():
        stale = _without_tree(stale) + _patches(workspace, pin, series, templates, None)
        builds = _builds(workspace, None, f"qlutattn vendor && {_apply(workspace, series, ())}")
        stale += [item for build in builds for item in build.stale]
        return Status(pin, "absent", tuple(stale), series, templates=templates, builds=builds)
    repository = open_tree(workspace)
    with locked(state_folder(repository) / "lock", str(workspace.tree), reading=True):
        tree = read_tree(repository, workspace.tree)
        unfinished = tree.transaction.is_unfinished
        foreign = () if unfinished else tuple(tree.foreign_changes())
        stale += _patches(workspace, pin, series, templates, tree)
        stale += _tree(workspace, tree, pin, series, foreign)
        now = origin_of(workspace, tree)
    if unfinished:
        why = "a command was interrupted; the next apply or revert finishes it"
        stale.append(Stale(RECEIPT, why, _command(workspace, "apply")))
    state: State
    if foreign:
        state = "dirty"
    elif tree.receipt is None and not unfinished:
        # without a receipt nothing is applied, so the patches do not matter
        state = "stale" if any(item.link == PIN for item in stale) else "clean"
    else:
        state = "stale" if stale else "applied"
    builds = _builds(workspace, now if _is_patched(workspace) else None, _apply(workspace, series, foreign))
    stale += [item for build in builds for item in build.stale]
    return Status(pin, state, tuple(stale), series, foreign, templates, tree.receipt, now, builds)


# --- from the templates to the tree


def _series(workspace: Workspace) -> tuple[Series | None, list[Stale]]:
    try:
        return load_series(workspace.patches), []
    except ExpectedError as failure:
        return None, [Stale(TEMPLATES, failure.cause, failure.hint or "qlutattn generate")]


def _patches(workspace: Workspace, pin: Pin, series: Series | None, templates: str, tree: Tree | None) -> list[Stale]:
    """Whether the patches were generated from these templates and the pin."""
    if series is None:
        return []
    made = read_patches_receipt(workspace.patches / GENERATED)
    found = []
    if made.upstream != pin.tree:
        why = f"the patches were generated from the tree {made.upstream[:12]}, the pin is {pin.tree[:12]}"
        found.append(Stale(PIN_PATCHES, why, "qlutattn vendor && qlutattn generate"))
    reasons = _changed_patches(made, series)
    fix = "qlutattn generate" if workspace.is_clone else "install qlutattn again"
    if made.templates != templates:
        reasons.insert(0, "templates/ has changed since the patches were generated")
        if tree is not None and tree.base_id == pin.tree:
            from qlutattn_patch.proof.codes import check_copy  # which imports numpy

            try:
                check_copy(load_formats(workspace.templates / "formats.toml").types)
                reasons += _drift(workspace, tree)
            except ExpectedError as failure:  # invalid templates are a stale link, not a failure of `status`
                reasons.append(failure.cause.removesuffix("."))
                fix = f"{failure.hint or 'fix that'}; then: {fix}"
    if reasons:
        found.append(Stale(TEMPLATES, "; ".join(reasons), fix))
    return found if tree is not None else _without_tree(found)


def _without_tree(found: list[Stale]) -> list[Stale]:
    """Where there is no tree, patches are generated once there is one."""
    alone = "qlutattn generate"
    return [structs.replace(item, next=f"qlutattn vendor && {alone}") if item.next == alone else item for item in found]


def _changed_patches(made: PatchesReceipt, series: Series) -> list[str]:
    here = {patch.name: patch.digest for patch in series.patches}
    changed = sorted(name for name in {*here, *made.patches} if here.get(name) != made.patches.get(name))
    return [f"not as generated: {some(changed)}"] if changed else []


def _drift(workspace: Workspace, tree: Tree) -> list[str]:
    """What generate would change; only computed if something is stale, as it takes a second."""
    drift = generate(workspace, tree.repository).drift()
    return [f"qlutattn generate would change {some([item.path.name for item in drift])}"] if drift else []


def _tree(workspace: Workspace, tree: Tree, pin: Pin, series: Series | None, foreign: tuple[str, ...]) -> list[Stale]:
    """Whether the tree is at the pin and unchanged since these patches were applied."""
    found: list[Stale] = []
    apply = _apply(workspace, series, foreign)
    if workspace.is_vendored and tree.base_id != pin.tree:
        why = f"the tree's base is {tree.base_id[:12]}, the pin is {pin.tree[:12]}"
        refused = work_of_user(tree)
        fix = f"{refused.hint} && {apply}" if refused else f"qlutattn vendor && {apply}"
        found.append(Stale(PIN, why, fix))
    receipt = tree.receipt
    if receipt is None:
        return found
    if receipt.base != tree.base_id:
        why = f"HEAD has moved: the patches were applied to the tree {receipt.base[:12]}"
        found.append(Stale(PIN, why, found[0].next if found else apply))
    if series is not None and series.digest != receipt.series:
        found.append(Stale(PATCHES, "patches/ has changed since it was applied", apply))
    elif series is not None and series.templates != receipt.templates:
        found.append(Stale(PATCHES, "the same patches were generated from other templates when applied", apply))
    altered = tree.altered()
    if altered:
        found.append(Stale(RECEIPT, f"not as they were applied: {some(altered)}", apply))
    return found


# --- from the tree to the results


def _builds(workspace: Workspace, now: Origin | None, apply: str) -> tuple[Build, ...]:
    """`apply` is the command that patches the tree."""
    folders = {preset: workspace.build_dir(preset) for preset in PRESETS}
    there = {preset: folder for preset, folder in folders.items() if (folder / STAMP).is_file()}
    before = "" if now else f"{apply} && "
    return tuple(_build(workspace, preset, folder, now, before) for preset, folder in there.items())


def _build(workspace: Workspace, preset: str, folder: Path, now: Origin | None, before: str) -> Build:
    stamp = read_stamp(folder)
    programs = _programs(workspace, preset, folder, stamp, now, before)
    kept, stale = _results(workspace, preset, folder, before, programs)
    return Build(preset, stamp.targets, kept, (*programs, *stale))


def _programs(
    workspace: Workspace, preset: str, folder: Path, stamp: Stamp, now: Origin | None, before: str
) -> list[Stale]:
    """Whether each program was built from the current tree."""
    if lacking := _lacking(preset):
        before = f"{lacking}; then: {before}"
    if not stamp.facts:
        why = f"its last configure did not finish, or {STAMP} is incomplete"
        return [Stale(f"tree -> {preset}", why, before + _command(workspace, "build", "--preset", preset))]
    found = []
    unknown = [
        name for name in results.TARGETS.values() if name not in stamp.targets and (folder / "bin" / name).exists()
    ]
    for target in [*stamp.targets, *unknown]:
        if reasons := why_stale(folder, target, now):
            fix = before + _command(workspace, "build", "--preset", preset, "--target", target)
            found.append(Stale(f"tree -> {preset}: {target}", "; ".join(reasons), fix))
    return found


def _lacking(preset: str) -> str | None:
    """What to install before this preset can be built."""
    try:
        toolchain.find_compilers(PRESETS[preset])
    except ExpectedError as failure:
        return failure.hint
    return None


def _results(
    workspace: Workspace, preset: str, folder: Path, before: str, programs: list[Stale]
) -> tuple[dict[str, StoredResult], list[Stale]]:
    """The results of a build, and which of them are stale."""
    # align judges no stale program; bench and eval build theirs
    builds = {item.link.rpartition(" ")[2]: f"{item.next} && " for item in programs}
    ready = dict.fromkeys(results.TARGETS, before) | {results.ALIGN: builds.get(_ALIGN_TARGET, before)}
    kept: dict[str, StoredResult] = {}
    stale = []
    for kind, target in results.TARGETS.items():
        link = f"{preset}: {target} -> {kind}"
        try:
            found = results.read(folder, kind)
        except ExpectedError as failure:
            name, *words = results.COMMANDS[kind]
            again = ready[kind] + _command(workspace, name, "--preset", preset, *words)
            stale.append(Stale(link, failure.cause, "qlutattn eval --help" if kind == results.EVAL else again))
            continue
        if found is None:
            continue
        kept[kind] = found
        reasons = found.why_stale(folder)
        reasons += [] if found.ok else [f"it failed ({found.result.get('failed')} cases)"]
        if reasons:
            fix = ready[kind] + repeat(workspace, preset, found)
            gone = [path for path in found.inputs if not Path(path).is_file()]
            stale.append(Stale(link, "; ".join(reasons), "qlutattn eval --help" if gone else fix))
    return kept, stale


def repeat(workspace: Workspace, preset: str, kept: StoredResult) -> str:
    """The command that repeats a result."""
    return _command(workspace, results.COMMANDS[kept.kind][0], "--preset", preset, *kept.arguments)


def _is_patched(workspace: Workspace) -> bool:
    return (workspace.tree / "tools" / "align-attn").is_dir()


def _apply(workspace: Workspace, series: Series | None, foreign: tuple[str, ...]) -> str:
    """What patches the tree; `apply` refuses without patches, and where the user has changed files."""
    command = ("" if series or not workspace.is_clone else "qlutattn generate && ") + _command(workspace, "apply")
    return f"save your changes ({some(list(foreign))}), then: {command}" if foreign else command


def _command(workspace: Workspace, *words: str) -> str:
    return process.shown(["qlutattn", *words, *workspace.options])


# --- the document


def document_of(status: Status) -> StatusDocument:
    """The JSON document, without lists of files and rows."""
    patches = status.series.patches if status.series else ()
    return StatusDocument(
        Pinned(status.pin.commit, status.pin.tree),
        status.state,
        list(status.stale),
        status.series.digest if status.series else None,
        list(status.foreign),
        [PatchEntry(patch.title, [file.path for file in patch.files], patch.upstream_lines) for patch in patches],
        _chain(status),
    )


def _chain(status: Status) -> Chain:
    receipt = status.receipt
    made = status.series.receipt if status.series else None
    return Chain(
        status.templates,
        PatchesMade(made.templates, made.upstream, made.patches) if made else None,
        TreeMade(receipt.commit, receipt.base, receipt.series, receipt.templates, receipt.result, status.now.tree)
        if receipt
        else None,
        [
            BuildFolder(
                build.preset,
                {name: Target(built.origin, built.facts) for name, built in build.targets.items()},
                {kind: _brief(kept) for kind, kept in build.results.items()},
            )
            for build in status.builds
        ],
    )


def _brief(kept: StoredResult) -> ResultEntry:
    wanted = ("ok", "passed", "failed", "arguments", "model", "text")
    counted = {"rows": len(kept.result["rows"])} if "rows" in kept.result else {}
    result = {name: kept.result[name] for name in wanted if name in kept.result} | counted
    return ResultEntry(kept.when, kept.part, kept.cpu, kept.kernel, kept.of.origin, kept.of.facts, result)
