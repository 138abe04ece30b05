"""The patch set in `patches/`: the patches that `series` lists, in order, and their digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from qlutattn_patch.patches.patchfile import FilePatch, split_patch
from qlutattn_patch.patches.receipt import PatchesReceipt, read_patches_receipt
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.templates.spec import read_series

SERIES = "series"
RECEIPT = "receipt.json"
SUFFIX = ".patch"


@dataclass(frozen=True)
class Patch:
    """One patch file."""

    name: str
    data: bytes

    @property
    def title(self) -> str:
        """The name without the suffix: the name of the specification."""
        return self.name.removesuffix(SUFFIX)

    @cached_property
    def files(self) -> list[FilePatch]:
        return split_patch(self.data)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def upstream_lines(self) -> int:
        """Lines added to and removed from existing files: the cost of the patch when upstream changes."""
        return sum(file.changed_lines for file in self.files if not file.is_new)


@dataclass(frozen=True)
class Series:
    """The patches in order, with the digest of the templates and the tree that they were generated from."""

    patches: tuple[Patch, ...]
    templates: str
    upstream: str

    @property
    def file(self) -> bytes:
        """The contents of the file `series`."""
        head = "# The order of the patches, from templates/hooks/series by qlutattn generate: do not edit.\n"
        return (head + "".join(f"{patch.name}\n" for patch in self.patches)).encode()

    @property
    def receipt(self) -> PatchesReceipt:
        """The contents of patches/receipt.json."""
        return PatchesReceipt(self.templates, self.upstream, {patch.name: patch.digest for patch in self.patches})

    @property
    def digest(self) -> str:
        """The sha256 of all names and contents, in order."""
        digest = hashlib.sha256()
        for patch in self.patches:
            digest.update(f"{patch.name}\0{len(patch.data)}\0".encode())
            digest.update(patch.data)
        return digest.hexdigest()


def load_series(folder: Path) -> Series:
    """Read the patches that `patches/series` lists."""
    names = read_series(folder / SERIES, "qlutattn generate")
    if not names:
        raise ExpectedError(f"{folder / SERIES} lists no patch.", "qlutattn generate")
    patches = tuple(Patch(name, _read(folder / name)) for name in names)
    made = read_patches_receipt(folder / RECEIPT)
    return Series(patches, made.templates, made.upstream)


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as failure:
        raise ExpectedError(
            f"The patch {path} is listed in {SERIES} but cannot be read: {failure.strerror}.", "qlutattn generate"
        ) from None
    if data.split(b"\n", 1)[0].endswith(b"\r"):
        raise ExpectedError(
            f"The patch {path} was checked out with CRLF line endings, which git apply does not accept.",
            "git config core.autocrlf false && git checkout -- patches",
        )
    if not split_patch(data):
        raise ExpectedError(f"The patch {path} changes no file.", "qlutattn generate")
    return data
