"""The receipts of generate and apply: what was made, from what, and onto what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qlutattn_patch.errors import ExpectedError


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
    except (ValueError, OSError, TypeError):
        pass
    raise ExpectedError(f"{path}, which says what the patches were made from, cannot be read.", "qlutattn generate")


def read_receipt(path: Path) -> Receipt | None:
    """Read the receipt of an apply, None if there is none."""
    try:
        receipt = Receipt(**_decoded(path))
        if isinstance(receipt.files, dict):
            return receipt
    except FileNotFoundError:
        return None
    except (ValueError, OSError, TypeError):
        pass
    raise ExpectedError(
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
