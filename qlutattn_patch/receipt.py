"""The receipt of an apply: what was put into the tree, from what, and onto what."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from qlutattn_patch.errors import ExpectedError
from qlutattn_patch.files import is_plain_path

_ID = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


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
    except (ValueError, RecursionError, OSError) as failure:
        raise _damaged(path) from failure
    if not isinstance(raw, dict) or raw.pop("schema", None) != 1:
        raise _damaged(path)
    try:
        receipt = Receipt(**raw)
    except TypeError as failure:
        raise _damaged(path) from failure
    if not _is_whole(receipt):
        raise _damaged(path)
    return receipt


def _is_whole(receipt: Receipt) -> bool:
    """Whether every field is what apply writes: ids are git's or a sha256, and no path leads out of the tree."""
    ids: list[object] = [receipt.commit, receipt.base, receipt.series, receipt.result]
    if not isinstance(receipt.files, dict) or not all(is_plain_path(path) for path in receipt.files):
        return False
    ids += [blob for blob in receipt.files.values() if blob is not None]
    return all(isinstance(one, str) and _ID.fullmatch(one) for one in ids)


def _damaged(path: Path) -> ExpectedError:
    return ExpectedError(
        f"The receipt {path} cannot be read.",
        "put the files back with git checkout and git clean, remove the receipt, then: qlutattn apply",
    )
