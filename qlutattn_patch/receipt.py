"""The receipt of an apply: what was put into the tree, from what, and onto what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from qlutattn_patch.errors import ExpectedError


@dataclass(frozen=True)
class Receipt:
    """`files` holds the blob id of each file that apply changed, None for one that it removed."""

    commit: str
    base: str
    series: str
    result: str
    files: Mapping[str, str | None]

    def encode(self) -> bytes:
        """The contents of receipt.json."""
        return (json.dumps({"schema": 1, **asdict(self)}, indent=1, sort_keys=True) + "\n").encode()


def read_receipt(path: Path) -> Receipt | None:
    """Read a receipt, None if there is none."""
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as failure:
        raise _damaged(path) from failure
    if not isinstance(raw, dict) or raw.pop("schema", None) != 1:
        raise _damaged(path)
    try:
        receipt = Receipt(**raw)
    except TypeError as failure:
        raise _damaged(path) from failure
    if not isinstance(receipt.files, dict):
        raise _damaged(path)
    return receipt


def _damaged(path: Path) -> ExpectedError:
    return ExpectedError(
        f"The receipt {path} cannot be read.",
        "put the files back with git checkout and git clean, remove the receipt, then: qlutattn apply",
    )
