"""What a build folder says of itself, also when it says nothing sensible."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import ValidationError

from qlutattn_patch.building.origin import Origin
from qlutattn_patch.building.stamp import (
    STAMP,
    UNKNOWN,
    Built,
    File,
    Stamp,
    built_now,
    different_facts,
    known,
    read_stamp,
)
from qlutattn_patch.system.records import typed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bin = tmp_path / "Bau 1" / "bin"
    bin.mkdir(parents=True)
    for name in ("align_attn", "libggml-cpu.so.0.1", "libllama.so.0.1", "notes.txt"):
        (bin / name).write_bytes(b"x")
    (bin / "libggml-cpu.so").symlink_to("libggml-cpu.so.0.1")
    return tmp_path / "Bau 1"


def test_a_stamp_is_read_as_it_was_written(folder: Path) -> None:
    built = built_now(folder / "bin", "align_attn", {"CXXFLAGS": ""}, Origin(series="s"))
    assert built is not None
    assert list(built.files) == ["align_attn", "libggml-cpu.so.0.1"]
    stamp = Stamp({"CXXFLAGS": "-O1"}, {"align_attn": built})
    stamp.write(folder)
    assert read_stamp(folder) == stamp
    assert known(folder, "align_attn") == built
    (folder / "bin" / "align_attn").write_bytes(b"another")
    found = known(folder, "align_attn")
    assert (found.facts, found.origin, found.changed(folder / "bin")) == ({}, Origin(), [])


def test_what_is_no_program_was_not_built(folder: Path) -> None:
    assert built_now(folder / "bin", "ggml", {}, Origin()) is None
    assert known(folder, "llama-perplexity") == UNKNOWN


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"facts": 3}', '{"facts": {}, "targets": []}', '{"facts": {}, "targets": {"a": {}}}']
)
def test_a_stamp_that_cannot_be_read_says_nothing(folder: Path, text: str) -> None:
    (folder / STAMP).write_text(text)
    assert read_stamp(folder) == Stamp()


@pytest.mark.parametrize(
    "raw", [None, [], {}, {"files": {}, "facts": {}}, {"files": {"a": {}}, "facts": {}, "origin": {}}]
)
def test_what_describes_no_program_is_refused(raw: object) -> None:
    with pytest.raises(ValidationError, match=r"Expected `object`|missing required field"):
        typed(raw, Built)


def test_a_file_of_the_same_size_and_time_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "libllama.so"
    path.write_bytes(b"gigabytes")
    found = path.stat()
    assert File(found.st_size, found.st_mtime_ns, "a digest that nothing has").is_still(path)
    assert not File(found.st_size, 0, "a digest that nothing has").is_still(path)
    assert not File(found.st_size, found.st_mtime_ns, "").is_still(tmp_path / "nothing")


def test_differences_are_told_in_the_order_of_the_new_facts() -> None:
    assert different_facts({"cmake": "1", "A": "x"}, {"cmake": "2", "B": "y"}, ignored=("B",)) == [
        "the cmake changed from 1 to 2",
        "A changed from x to nothing",
    ]
