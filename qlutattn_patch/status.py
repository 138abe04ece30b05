"""What state the tree is in, and which link of the chain templates → patches → tree is stale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qlutattn_patch.config import Pin, load_pin
from qlutattn_patch.errors import ExpectedError
from qlutattn_patch.generate import generate
from qlutattn_patch.lock import locked
from qlutattn_patch.series import Series, load_series
from qlutattn_patch.tree import Tree, open_tree, read_tree, state_folder
from qlutattn_patch.workspace import Workspace

TEMPLATES, PATCHES, PIN, RECEIPT = "templates -> patches", "patches -> tree", "pin -> tree", "receipt -> files"
_NAMED = 5


@dataclass(frozen=True)
class Stale:
    """A link whose far end is not what its near end says, and why."""

    link: str
    why: str


@dataclass(frozen=True)
class Status:
    """`state` is absent, clean, applied, stale or dirty."""

    pin: Pin
    state: str
    stale: tuple[Stale, ...]
    series: Series | None
    foreign: tuple[str, ...] = ()


def read_status(workspace: Workspace) -> Status:
    """Compare pin, templates, patches, receipt and files; nothing is changed."""
    pin = load_pin(workspace.pin_file)
    series, stale = _series(workspace)
    if workspace.is_vendored and not workspace.tree.exists():
        return Status(pin, "absent", tuple(stale), series)
    repository = open_tree(workspace)
    with locked(state_folder(repository) / "lock", str(workspace.tree)):
        tree = read_tree(repository, workspace.tree)
        unfinished = tree.transaction.is_unfinished
        foreign = () if unfinished else tuple(tree.foreign_changes())
        stale += _stale(workspace, tree, pin, series)
    if unfinished:
        stale.append(Stale(RECEIPT, "a command was interrupted; the next apply or revert finishes what it began"))
    if foreign:
        state = "dirty"
    elif tree.receipt is None and not unfinished:
        # without a receipt nothing is applied: what the patches are is no business of this tree
        state = "stale" if any(item.link == PIN for item in stale) else "clean"
    else:
        state = "stale" if stale else "applied"
    return Status(pin, state, tuple(stale), series, foreign)


def _series(workspace: Workspace) -> tuple[Series | None, list[Stale]]:
    try:
        return load_series(workspace.patches), []
    except ExpectedError as failure:
        return None, [Stale(TEMPLATES, failure.cause)]


def _stale(workspace: Workspace, tree: Tree, pin: Pin, series: Series | None) -> list[Stale]:
    found: list[Stale] = []
    at_pin = tree.base_id == pin.tree
    if workspace.is_vendored and not at_pin:
        found.append(Stale(PIN, f"the tree's base is {tree.base_id[:12]}, the pin says {pin.tree[:12]}"))
    if at_pin and series is not None:
        why = _said(lambda: _drift(workspace, tree))
        found += [Stale(TEMPLATES, why)] if why else []
    receipt = tree.receipt
    if receipt is None:
        return found
    if receipt.base != tree.base_id:
        found.append(Stale(PIN, f"HEAD has moved: the patches were applied to the tree {receipt.base[:12]}"))
    if series is not None and series.digest != receipt.series:
        found.append(Stale(PATCHES, "patches/ has changed since it was applied"))
    altered = tree.altered()
    if altered:
        found.append(Stale(RECEIPT, f"not as they were applied: {_some(altered)}"))
    return found


def _drift(workspace: Workspace, tree: Tree) -> str:
    drift = generate(workspace, tree.repository).drift()
    return f"qlutattn generate would change {_some([item.path.name for item in drift])}" if drift else ""


def _said(work: Callable[[], str]) -> str:
    """What a check says; templates that are wrong are a stale link, not a failure of `status`."""
    try:
        return work()
    except ExpectedError as failure:
        return failure.cause


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
