"""The pin is checked."""

from __future__ import annotations

import pytest
from helpers import ROOT

from qlutattn_patch.system.errors import ExpectedError
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
        ("schema = 1", "schema = 2", "'schema' must be 1, not 2"),
        ("schema = 1", "", "'schema' is missing"),
        ("schema = 1", "schema = true", "'schema' must be 1, not true"),
        ("schema = 1", "schema = 1\nextra = 2", "unknown key 'extra'"),
        ("a" * 40, "a" * 39, "'commit' must be 40 lower-case hexadecimal digits"),
        ("c" * 64, "C" * 64, "'sha256' must be 64"),
        ('kind = "git"', 'kind = "svn"', "'kind' must be 'sdist' or 'git', not 'svn'"),
        ('kind = "git"', 'kind = "git"\ndepth = 1', r"unknown key 'depth' \(known are url\)"),
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


def test_crlf_reads_the_same(tmp_path):
    (tmp_path / "pin.toml").write_bytes(PIN.replace("\n", "\r\n").encode())
    assert load_pin(tmp_path / "pin.toml").commit == "a" * 40
