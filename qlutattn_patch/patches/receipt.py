"""The receipts of generate and apply: what was made, from what, and onto what."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.files import is_plain_path

_ID = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class PatchesReceipt:
    """What patches/ was generated from: the digest of the templates, the pristine tree; and each patch's digest."""

    templates: str
    upstream: str
    patches: Mapping[str, str]

    def encode(self) -> bytes:
        """The contents of patches/receipt.json."""
        return _encoded(self)


@dataclass(frozen=True)
class Receipt:
    """`files` holds the blob id of each file that apply changed, None for one that it removed."""

    commit: str
    base: str
    series: str
    result: str
    files: Mapping[str, str | None]
    templates: str | None = None  # None: applied before templates had a digest

    def encode(self) -> bytes:
        """The contents of receipt.json."""
        return _encoded(self)


def read_patches_receipt(path: Path) -> PatchesReceipt:
    """Read the receipt of a generate; patches without one are of unknown making."""
    try:
        found = PatchesReceipt(**_decoded(path))
        if isinstance(found.patches, dict) and isinstance(found.templates, str) and isinstance(found.upstream, str):
            return found
    except FileNotFoundError:
        raise ExpectedError(
            f"{path}, which says what the patches were made from, is missing.", "qlutattn generate"
        ) from None
    except (ValueError, RecursionError, OSError, TypeError):
        pass
    raise ExpectedError(f"{path}, which says what the patches were made from, cannot be read.", "qlutattn generate")


def read_receipt(path: Path) -> Receipt | None:
    """Read the receipt of an apply, None if there is none."""
    try:
        receipt = Receipt(**_decoded(path))
        if _is_whole(receipt):
            return receipt
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, OSError, TypeError) as failure:
        raise _damaged(path) from failure
    raise _damaged(path)


def _is_whole(receipt: Receipt) -> bool:
    """Whether every field is what apply writes: ids are git's or a sha256, and no path leads out of the tree."""
    ids: list[object] = [receipt.commit, receipt.base, receipt.series, receipt.result]
    if not isinstance(receipt.files, dict) or not all(is_plain_path(path) for path in receipt.files):
        return False
    ids += [] if receipt.templates is None else [receipt.templates]
    ids += [blob for blob in receipt.files.values() if blob is not None]
    return all(isinstance(one, str) and _ID.fullmatch(one) for one in ids)


def _damaged(path: Path) -> ExpectedError:
    return ExpectedError(
        f"The receipt {path} cannot be read.",
        "put the files back with git checkout and git clean, remove the receipt, then: qlutattn apply",
    )


def _encoded(receipt: PatchesReceipt | Receipt) -> bytes:
    return (json.dumps({"schema": 1, **asdict(receipt)}, indent=1, sort_keys=True) + "\n").encode()


def _decoded(path: Path) -> dict[str, Any]:
    raw = json.loads(path.read_bytes())
    if not isinstance(raw, dict) or raw.pop("schema", None) != 1:
        raise ValueError
    return raw
