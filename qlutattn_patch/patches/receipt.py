"""The receipts of generate and apply: the output and the inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.files import is_plain_path
from qlutattn_patch.system.records import Versioned, encoded, read

_Id = Annotated[str, Meta(pattern=r"\A([0-9a-f]{40}|[0-9a-f]{64})\Z")]


class _Receipt(Versioned, frozen=True):
    def encode(self) -> bytes:
        """The contents of receipt.json."""
        return encoded(self, is_sorted=True)


class PatchesReceipt(_Receipt, frozen=True):
    """The inputs of patches/ (digest of the templates, pristine tree), and each patch's digest."""

    templates: str
    upstream: str
    patches: dict[str, str]


class Receipt(_Receipt, frozen=True):
    """`files` holds the blob id of each file that apply changed, None for one that it removed."""

    commit: _Id
    base: _Id
    series: _Id
    result: _Id
    files: dict[str, _Id | None]
    templates: _Id | None = None  # None: applied before templates had a digest

    def __post_init__(self) -> None:
        if not all(is_plain_path(path) for path in self.files):
            raise ValueError("a path is outside the tree")


def read_patches_receipt(path: Path) -> PatchesReceipt:
    """Read the receipt of generate; an ExpectedError if it is missing or unreadable."""
    try:
        return read(path, PatchesReceipt)
    except (ValueError, OSError) as failure:
        wrong = "is missing" if isinstance(failure, FileNotFoundError) else "cannot be read"
        raise ExpectedError(f"{path}, which records the inputs of the patches, {wrong}.", "qlutattn generate") from None


def read_receipt(path: Path) -> Receipt | None:
    """Read the receipt of apply, or None."""
    try:
        return read(path, Receipt)
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as failure:
        raise ExpectedError(
            f"The receipt {path} cannot be read.",
            "restore the files with git checkout and git clean, remove the receipt, then: qlutattn apply",
        ) from failure
