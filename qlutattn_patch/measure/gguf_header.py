"""The metadata of a GGUF file, read without its tensors and its tokenizer."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from qlutattn_patch.system.errors import ExpectedError

Value = int | float | bool | str | tuple[int | float | bool, ...]
Header = dict[str, Value]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {
    **{0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f"},
    **{7: "<?", 10: "<Q", 11: "<q", 12: "<d"},
}
_LONGEST = 4096  # numbers of an array that is kept: one for each layer


class _Damaged(Exception):
    """What is wrong with a file."""


def read_header(path: Path) -> Header:
    """The metadata by key; without arrays of strings, and without arrays longer than any model's layers."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).header()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ExpectedError(f"There is no model file {path}.", "name a GGUF file with --model") from None
    except (_Damaged, struct.error, ValueError, UnicodeDecodeError) as failure:
        why = str(failure) if isinstance(failure, _Damaged) else "its metadata is cut off or damaged"
        raise ExpectedError(
            f"{path} is no GGUF file that can be read: {why}.", "download or convert it again"
        ) from None


class _Reader:
    """Reads one value after the other."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def header(self) -> Header:
        if self._bytes(4) != _MAGIC:
            raise _Damaged("it does not start with GGUF")
        version = self._number("<I")
        if version not in _VERSIONS:
            raise _Damaged(f"its version is {version}, not 2 or 3 (or its bytes are in big-endian order)")
        self._number("<Q")  # tensors
        count = int(self._number("<Q"))
        header: Header = {}
        for _ in range(count):
            key = self._bytes(int(self._number("<Q"))).decode()
            value = self._value(int(self._number("<I")))
            if value is not None:
                header[key] = value
        return header

    def _value(self, kind: int) -> Value | None:
        if kind == _STRING:
            return self._bytes(int(self._number("<Q"))).decode("utf-8", "replace")
        if kind == _ARRAY:
            return self._array(int(self._number("<I")), int(self._number("<Q")))
        return self._number(self._scalar(kind))

    def _array(self, kind: int, count: int) -> Value | None:
        if kind == _STRING:
            for _ in range(count):
                self._skip(int(self._number("<Q")))
            return None
        form = self._scalar(kind)
        if count > _LONGEST:
            self._skip(count * struct.calcsize(form))
            return None
        return tuple(self._number(form) for _ in range(count))

    def _scalar(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise _Damaged(f"a value has the unknown type {kind}")
        return _SCALARS[kind]

    def _number(self, form: str) -> int | float | bool:
        found: int | float | bool = struct.unpack(form, self._bytes(struct.calcsize(form)))[0]
        return found

    def _bytes(self, size: int) -> bytes:
        start = self._at
        self._skip(size)
        return self._data[start : self._at]

    def _skip(self, size: int) -> None:
        self._at += size
        if self._at > len(self._data):
            raise _Damaged("it ends within its metadata")
