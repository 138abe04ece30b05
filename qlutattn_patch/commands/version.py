"""The version of qlutattn, its pinned llama.cpp, and its patch set."""

from __future__ import annotations

from qlutattn_patch import __version__
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.upstream.pin import SdistSource, load_pin
from qlutattn_patch.workspace import Workspace


def lines() -> list[str]:
    """Version, pin and series; a copied package has neither pin nor series."""
    first = f"qlutattn {__version__}"
    try:
        workspace = Workspace.find()
    except ExpectedError:
        return [first, "pin: none here (it is in a clone and in the wheel)", "series: none here"]
    return [first, f"pin: {_pin(workspace)}", f"series: {_series(workspace)}"]


def _pin(workspace: Workspace) -> str:
    try:
        pin = load_pin(workspace.pin_file)
    except ExpectedError as failure:
        return failure.cause
    releases = [f", {source.package} {source.version}" for source in pin.sources if isinstance(source, SdistSource)]
    return f"llama.cpp {pin.commit} (tree {pin.tree}{''.join(releases)})"


def _series(workspace: Workspace) -> str:
    try:
        series = load_series(workspace.patches)
    except ExpectedError as failure:
        return failure.cause
    return f"{series.digest} ({len(series.patches)} patches)"
