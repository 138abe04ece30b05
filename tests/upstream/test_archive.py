"""Source archives are unpacked only if all of their members are harmless."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import tarfile
from pathlib import Path

import pytest
from helpers import UPSTREAM, make_tar, snapshot, upstream_tar

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.upstream import archive
from qlutattn_patch.upstream.archive import text_of, unpack
from qlutattn_patch.upstream.layout import LANDMARKS


def do_unpack(path, target, prefix=None):
    seen = []
    unpack(path, target, prefix, LANDMARKS, lambda done, total: seen.append((done, total)))
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
        path = make_tar(tmp_path / "x.tar.gz", members, (".sh",))
        do_unpack(path, tmp_path / f"out {prefix and 1}", prefix)
        assert snapshot(tmp_path / f"out {prefix and 1}") == UPSTREAM_FILES


@pytest.mark.parametrize(
    ("name", "what", "said"),
    [
        ("a/../../evil", b"x", "which is outside the destination"),
        ("..", b"x", "which is outside the destination"),
        ("x/../x/ggml/evil", b"x", "has an invalid name"),  # leads out without the x/
        ("x/a\\..\\evil", b"x", "has an invalid name"),
        ("x/a\nb", b"x", "has an invalid name"),
        ("x/a\x1b[31mb", b"x", "has an invalid name"),
        ("x/a\udcffb", b"x", "has an invalid name"),
        ("x/CMAKELISTS.txt", b"x", "are the same file on some systems"),
        ("x/./CMakeLists.txt", b"x", "are the same file on some systems"),
        ("x/ggml", b"x", "is a file and the folder of"),
        ("link", odd("link", tarfile.SYMTYPE, "/etc"), "is a link"),
        ("hard", odd("hard", tarfile.LNKTYPE, "CMakeLists.txt"), "is a link"),
        ("fifo", odd("fifo", tarfile.FIFOTYPE), "is a device"),
        ("disk", odd("disk", tarfile.BLKTYPE), "is a device"),
        ("tty", odd("tty", tarfile.CHRTYPE), "is a device"),
    ],
)
def test_a_hostile_member_is_refused_before_anything_is_written(tmp_path, name, what, said):
    members = {f"x/{path}": text.encode() for path, text in UPSTREAM.items()}
    path = make_tar(tmp_path / "in" / "x.tar.gz", members | {name: what})
    with pytest.raises(ExpectedError, match=said) as told:
        do_unpack(path, tmp_path / "out" / "there")
    assert name.removeprefix("x/./").removeprefix("x/") in told.value.cause or not name.isprintable()
    assert "\n" not in told.value.cause
    assert told.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize("name", ["/etc/evil", "/x/evil", "C:/evil", "a\\..\\evil", "a\nb", "../evil"])
@pytest.mark.parametrize("has_filter", [True, False])
def test_what_is_beside_the_folder_is_never_written(tmp_path, name, has_filter, monkeypatch):
    """Not even by a Python whose tarfile has no filter."""
    if not has_filter:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    members = {f"x/{path}": text.encode() for path, text in UPSTREAM.items()}
    path = make_tar(tmp_path / "in" / "x.tar.gz", members | {name: b"x"}, (".sh",))
    with contextlib.suppress(ExpectedError):
        do_unpack(path, tmp_path / "out" / "there")
    assert not Path("/etc/evil").exists()
    assert snapshot(tmp_path / "out") in ({}, {f"there/{file}": what for file, what in UPSTREAM_FILES.items()})


def sized(name, size):
    """A header that promises more than follows it."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (sized("big", 5 << 30), "more than 4 GiB"),
        (sized("big", 1 << 62), "more than 4 GiB"),
        (sized("a", 3 << 30), "damaged"),
        (sized("back", -512), "damaged|below zero"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_promise_of_too_much_is_refused_at_once(tmp_path, headers, said, pack):
    (tmp_path / "x.tar").write_bytes(pack(headers + bytes(4096)))
    with pytest.raises(ExpectedError, match=said):
        do_unpack(tmp_path / "x.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bomb_of_zeros_is_not_unpacked(tmp_path):
    """64 MiB of zeros that say they are the name of a file: nobody reads them as one piece."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 26
    with gzip.open(tmp_path / "x.tgz", "wb", compresslevel=1) as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(65):
            file.write(bytes(1 << 20))
    with pytest.raises(ExpectedError, match="a header is too large"):
        do_unpack(tmp_path / "x.tgz", tmp_path / "out")


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", len(UPSTREAM) - 1)
    with pytest.raises(ExpectedError, match="more than 6 members"):
        do_unpack(upstream_tar(tmp_path / "x.tgz"), tmp_path / "out")


def test_a_full_disk_is_no_damaged_archive(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "there")

    monkeypatch.setattr(archive.shutil, "copyfileobj", full)
    with pytest.raises(ExpectedError, match="there cannot be read or written: No space left on device"):
        do_unpack(upstream_tar(tmp_path / "x.tgz"), tmp_path / "out")


def test_a_truncated_archive_is_refused_wherever_it_ends(tmp_path):
    whole = upstream_tar(tmp_path / "x.tar.gz").read_bytes()
    plain = gzip.decompress(whole)
    end = len(plain.rstrip(b"\0")) // 512 * 512
    cuts = [whole[:size] for size in range(0, len(whole) - 1, 37)] + [plain[:size] for size in range(0, end, 256)]
    for cut in cuts:
        (tmp_path / "cut.tar").write_bytes(cut)
        with pytest.raises(ExpectedError, match="damaged or not a tar archive"):
            do_unpack(tmp_path / "cut.tar", tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_damaged_archive_is_refused(tmp_path):
    data = bytearray(upstream_tar(tmp_path / "x.tar.gz").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "x.tar.gz").write_bytes(data)
    with pytest.raises(ExpectedError, match=r"damaged or not a tar archive|refused|has no llama\.cpp"):
        do_unpack(tmp_path / "x.tar.gz", tmp_path / "out")


def test_an_archive_of_something_else_is_refused(tmp_path):
    path = make_tar(tmp_path / "x.tar.gz", {"x/CMakeLists.txt": b"x\n"})
    with pytest.raises(ExpectedError, match=r"contains no llama\.cpp"):
        do_unpack(path, tmp_path / "out")
    with pytest.raises(ExpectedError, match=r"a folder vendor/llama\.cpp with"):
        do_unpack(path, tmp_path / "out", "vendor/llama.cpp")


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
