"""TOML is read strictly, and what is wrong in it is reported with its place."""

from __future__ import annotations

from typing import Annotated

import pytest
from msgspec import Meta

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.records import Record
from qlutattn_patch.system.toml import RepositoryPath, load


class Table(Record, frozen=True):
    """A table to be read."""

    a: str | int
    b: tuple[Annotated[int, Meta(ge=0, le=9)], ...] = ()
    c: float = 0.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 20000, "nested too deeply"),
        ("a = " + "9" * 5000, "is not valid TOML"),
        ("a = 0.5", "'a' must be .*, not 0.5"),
        ("a = 1979-05-27", "'a' must be .*, not 1979-05-27"),
        ("\0", "is not valid TOML"),
        ("", "the key 'a' is missing"),
        ("a = 1\n'\u202e' = 1", r"unknown key '\\u202e' \(known are a, b, c\)"),
    ],
)
def test_a_hostile_file_is_told(tmp_path, text, said):
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(ExpectedError, match=said) as told:
        load(tmp_path / "x.toml", Table)
    assert told.value.hint


@pytest.mark.parametrize("number", ["0x" + "f" * 5000, str(2**63), f"-{2**64}"])
def test_a_number_too_large_to_print_is_told(tmp_path, number):
    for text, said in (
        (f"b = [{number}]", r"'b' at 1 must be an integer [<>]= \d"),
        (f"b = {number}", "'b' must be a list"),
        (f"c = {number}{'f' * 999 if 'x' in number else '0' * 999}", "'c' must be a number"),
    ):
        (tmp_path / "x.toml").write_text(f"a = 0\n{text}\n")
        with pytest.raises(ExpectedError, match=f"{said}, not a number of more than 64 bits"):
            load(tmp_path / "x.toml", Table)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ExpectedError, match="There is no file"):
        load(tmp_path / "none.toml", Table)


def test_a_file_that_is_not_utf8_is_told(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"a = '\xff'\n")
    with pytest.raises(ExpectedError, match="not UTF-8"):
        load(tmp_path / "x.toml", Table)


@pytest.mark.parametrize("path", ["a\0b", "a\nb", "a\u202eb", ""])
def test_paths_that_cannot_be_printed_are_refused_and_not_printed(path):
    with pytest.raises(ValueError, match="not a plain") as told:
        RepositoryPath(path)
    assert str(told.value).isprintable()


@pytest.mark.parametrize("path", ["/x", "a/../b", "a//b", "./a", "a\\b", ".git/config", "a/.GIT/b", "a/", "."])
def test_paths_that_are_not_plain_are_refused(path):
    with pytest.raises(ValueError, match=r"not a plain|\.git folder"):
        RepositoryPath(path)


def test_a_list_with_a_stranger_in_it_is_refused(tmp_path):
    (tmp_path / "x.toml").write_text("a = 0\nb = [1, true]\n")
    with pytest.raises(ExpectedError, match="'b' at 2 must be an integer, not true"):
        load(tmp_path / "x.toml", Table)
