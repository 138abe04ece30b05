"""TOML is read strictly, and the pin is checked."""

from __future__ import annotations

import pytest
from helpers import ROOT

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.toml import TomlTable, read_toml, repository_path
from qlutattn_patch.upstream.pin import GitSource, SdistSource, load_pin

PIN = f"""\
schema = 1
commit = "{"a" * 40}"
tree = "{"b" * 40}"

[[source]]
kind = "sdist"
package = "some-package"
version = "1.0"
sha256 = "{"c" * 64}"
prefix = "vendor/llama.cpp"

[[source]]
kind = "git"
url = "https://localhost/x.git"
"""


def test_reads_a_pin(tmp_path):
    (tmp_path / "pin.toml").write_text(PIN)
    pin = load_pin(tmp_path / "pin.toml")
    assert (pin.commit, pin.tree) == ("a" * 40, "b" * 40)
    assert pin.sources == (
        SdistSource("some-package", "1.0", "c" * 64, "vendor/llama.cpp"),
        GitSource("https://localhost/x.git"),
    )


def test_the_projects_own_pin_is_right():
    kinds = [type(source) for source in load_pin(ROOT / "vendor" / "llama.cpp.toml").sources]
    assert kinds == [SdistSource, GitSource]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schema = 1", "schema = 2", "schema 2 is not known"),
        ("schema = 1", "", "'schema' is missing"),
        ("schema = 1", "schema = true", "'schema' must be an integer"),
        ("schema = 1", "schema = 1\nextra = 2", "unknown key 'extra'"),
        ("a" * 40, "a" * 39, "'commit' must be 40 lower-case hexadecimal digits"),
        ("c" * 64, "C" * 64, "'sha256' must be 64"),
        ('kind = "git"', 'kind = "svn"', "'kind' is 'svn'"),
        ('kind = "git"', 'kind = "git"\ndepth = 1', "unknown key 'depth'"),
        ("some-package", "--evil", "'package' must be a package name"),
        ("https://localhost", "--upload-pack=x", "'url' must be a URL"),
        ("vendor/llama.cpp", "../x", "not a plain relative path"),
        ("schema = 1", "schema = ", "is not valid TOML"),
    ],
)
def test_a_wrong_pin_is_told_in_one_sentence(tmp_path, old, new, said):
    assert old in PIN
    (tmp_path / "pin.toml").write_text(PIN.replace(old, new, 1))
    with pytest.raises(ExpectedError, match=said) as told:
        load_pin(tmp_path / "pin.toml")
    assert str(tmp_path / "pin.toml") in told.value.cause
    assert "\n" not in told.value.cause


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 20000, "nested too deeply"),
        ("a = " + "9" * 5000, "is not valid TOML"),
        ("a = 0", "must be a string"),
        ("\0", "is not valid TOML"),
        ("", "the key 'a' is missing"),
    ],
)
def test_a_hostile_file_is_told(tmp_path, text, said):
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(ExpectedError, match=said) as told:
        read_toml(tmp_path / "x.toml").text("a")
    assert told.value.hint


@pytest.mark.parametrize("number", ["0x" + "f" * 5000, str(2**63), f"-{2**64}"])
def test_a_number_too_large_to_print_is_told(tmp_path, number):
    (tmp_path / "x.toml").write_text(f"a = {number}\nb = [{number}]\nc = {number}\n")
    fields = read_toml(tmp_path / "x.toml")
    for read in (lambda: fields.integer("a"), lambda: fields.integers("b"), lambda: fields.number("c")):
        with pytest.raises(ExpectedError, match="a number of more than 64 bits"):
            read()


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ExpectedError, match="There is no file"):
        read_toml(tmp_path / "none.toml")


def test_a_file_that_is_not_utf8_is_told(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"a = '\xff'\n")
    with pytest.raises(ExpectedError, match="not UTF-8"):
        read_toml(tmp_path / "x.toml")


def test_crlf_reads_the_same(tmp_path):
    (tmp_path / "pin.toml").write_bytes(PIN.replace("\n", "\r\n").encode())
    assert load_pin(tmp_path / "pin.toml").commit == "a" * 40


@pytest.mark.parametrize("path", ["a\0b", "a\nb", "a\u202eb", ""])
def test_paths_that_cannot_be_printed_are_refused_and_not_printed(path):
    with pytest.raises(ExpectedError) as told:
        repository_path(TomlTable({}, "here"), "key", path)
    assert told.value.cause.isprintable()


@pytest.mark.parametrize("path", ["/x", "a/../b", "a//b", "./a", "a\\b", ".git/config", "a/.GIT/b", "a/", "."])
def test_paths_that_are_not_plain_are_refused(path):
    with pytest.raises(ExpectedError):
        repository_path(TomlTable({}, "here"), "key", path)


def test_a_list_with_a_stranger_in_it_is_refused():
    with pytest.raises(ExpectedError, match="list of integers"):
        TomlTable({"levels": [1, True]}, "here").integers("levels")
