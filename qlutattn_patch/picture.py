"""Pictures by matplotlib, which is there only if someone asked for it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from qlutattn_patch.errors import ExpectedError

SUFFIXES = (".svg", ".png")


def check(path: Path) -> None:
    """See that a picture can be made and be written there, before hours of measuring."""
    if path.suffix.lower() not in SUFFIXES:
        raise ExpectedError(
            f"'{path}' is no name for a picture: it must end in {' or '.join(SUFFIXES)}.",
            f"--plot {path.stem or 'picture'}.svg",
        )
    if not path.absolute().parent.is_dir():
        raise ExpectedError(f"There is no folder {path.absolute().parent} to write the picture to.", "make it")
    _figure()


def figure(width: float, height: float) -> Any:
    """An empty matplotlib Figure, of inches; an SVG of it has the same ids each time."""
    made = _figure()(figsize=(width, height), layout="constrained")
    importlib.import_module("matplotlib").rcParams["svg.hashsalt"] = "qlutattn"
    return made


def save(made: Any, path: Path) -> None:
    """Write the picture, as SVG or PNG by the file's name."""
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
    try:
        made.savefig(path, metadata=metadata)
    except OSError as failure:
        raise ExpectedError(f"{path} cannot be written: {failure.strerror}.", "name another file") from None


def _figure() -> Any:
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError:
        raise ExpectedError(
            "A picture needs the Python package matplotlib, which is not installed.",
            "python -m pip install matplotlib (or: pip install 'qlutattn-patch[plot]')",
        ) from None
