"""Source archives are unpacked only if all of their members are harmless."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile

import pytest
from helpers import UPSTREAM, make_tar, snapshot, upstream_tar

from qlutattn_patch.archive import text_of, unpack
from qlutattn_patch.errors import ExpectedError
from qlutattn_patch.upstream import LANDMARKS


def do_unpack(archive, target, prefix=None):
    seen = []
    unpack(archive, target, prefix, LANDMARKS, lambda done, total: seen.append((done, total)))
    return seen


def odd(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


UPSTREAM_FILES = {name: (text.encode(), name.endswith(".sh")) for name, text in UPSTREAM.items()}


@pytest.mark.parametrize("prefix", ["llama.cpp-1", "a/b/c", "."])
def test_unpacks_the_folder_that_holds_llama_cpp(tmp_path, prefix):
    seen = do_unpack(upstream_tar(tmp_path / "x.tar.gz", prefix), tmp_path / "out")
    assert snapshot(tmp_path / "out") == UPSTREAM_FILES
    assert seen[-1] == (len(UPSTREAM), len(UPSTREAM))


@pytest.mark.parametrize("pack", [lzma.compress, bz2.compress, bytes])
def test_any_compression(tmp_path, pack):
    plain = gzip.decompress(upstream_tar(tmp_path / "x.tar.gz").read_bytes())
    (tmp_path / "other").write_bytes(pack(plain))
    do_unpack(tmp_path / "other", tmp_path / "out")
    assert snapshot(tmp_path / "out") == UPSTREAM_FILES


def test_a_source_distribution_around_it(tmp_path):
    members = {f"pkg-1/vendor/llama.cpp/{name}": text.encode() for name, text in UPSTREAM.items()}
    members |= {"pkg-1/CMakeLists.txt": b"outer\n", "pkg-1/setup.py": b"evil()\n"}
    members |= {"pkg-1/vendor/llama.cpp/.git": b"gitdir: ../../.git/modules/x\n"}
    for prefix in ("vendor/llama.cpp", None):
        archive = make_tar(tmp_path / "x.tar.gz", members, (".sh",))
        do_unpack(archive, tmp_path / f"out {prefix and 1}", prefix)
        assert snapshot(tmp_path / f"out {prefix and 1}") == UPSTREAM_FILES


@pytest.mark.parametrize(
    ("name", "what", "said"),
    [
        ("/etc/evil", b"x", "has an absolute path"),
        ("C:/evil", b"x", "has an absolute path"),
        ("a/../../evil", b"x", "leads out of its folder"),
        ("a\\..\\evil", b"x", "leads out of its folder"),
        ("..", b"x", "leads out of its folder"),
        ("link", odd("link", tarfile.SYMTYPE, "/etc"), "is a link"),
        ("hard", odd("hard", tarfile.LNKTYPE, "CMakeLists.txt"), "is a link"),
        ("fifo", odd("fifo", tarfile.FIFOTYPE), "is a device"),
        ("disk", odd("disk", tarfile.BLKTYPE), "is a device"),
        ("tty", odd("tty", tarfile.CHRTYPE), "is a device"),
    ],
)
def test_a_hostile_member_is_refused_before_anything_is_written(tmp_path, name, what, said):
    members = {f"x/{path}": text.encode() for path, text in UPSTREAM.items()}
    archive = make_tar(tmp_path / "in" / "x.tar.gz", members | {name: what})
    with pytest.raises(ExpectedError, match=said) as told:
        do_unpack(archive, tmp_path / "out" / "there")
    assert name in told.value.cause
    assert "\n" not in told.value.cause
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_a_truncated_archive_is_refused_wherever_it_ends(tmp_path):
    whole = upstream_tar(tmp_path / "x.tar.gz").read_bytes()
    plain = gzip.decompress(whole)
    end = len(plain.rstrip(b"\0")) // 512 * 512
    cuts = [whole[:size] for size in range(0, len(whole) - 1, 37)] + [plain[:size] for size in range(0, end, 256)]
    for cut in cuts:
        (tmp_path / "cut.tar").write_bytes(cut)
        with pytest.raises(ExpectedError, match="damaged or no tar archive"):
            do_unpack(tmp_path / "cut.tar", tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_damaged_archive_is_refused(tmp_path):
    data = bytearray(upstream_tar(tmp_path / "x.tar.gz").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "x.tar.gz").write_bytes(data)
    with pytest.raises(ExpectedError, match=r"damaged or no tar archive|refused|has no llama\.cpp"):
        do_unpack(tmp_path / "x.tar.gz", tmp_path / "out")


def test_an_archive_of_something_else_is_refused(tmp_path):
    archive = make_tar(tmp_path / "x.tar.gz", {"x/CMakeLists.txt": b"x\n"})
    with pytest.raises(ExpectedError, match=r"has no llama\.cpp in it"):
        do_unpack(archive, tmp_path / "out")
    with pytest.raises(ExpectedError, match=r"a folder vendor/llama\.cpp with"):
        do_unpack(archive, tmp_path / "out", "vendor/llama.cpp")


def test_no_archive_is_told(tmp_path):
    with pytest.raises(ExpectedError, match="There is no archive"):
        do_unpack(tmp_path / "none.tar", tmp_path / "out")


def test_a_text_in_the_top_folder_is_read(tmp_path):
    members = {"x-1/sub/NEWS": b"no", "x-1/NEWS": "Größe\n".encode(), "x-1/NEWS.md": b"no"}
    path = make_tar(tmp_path / "a.tgz", members)
    assert text_of(path, "NEWS") == "Größe\n"
    assert text_of(path, "OLD") is None
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ExpectedError, match="damaged"):
        text_of(path, "OLD")
    with pytest.raises(ExpectedError, match="There is no archive"):
        text_of(tmp_path / "b.tgz", "NEWS")
