"""The patch set is read as it is, and its digest is that of its bytes."""

from __future__ import annotations

import pytest
from helpers import edit

from qlutattn_patch.patches.generate import generate
from qlutattn_patch.patches.patchfile import split_patch
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.system.errors import ExpectedError


@pytest.fixture
def patches(project):
    generate(project.workspace, project.repository).write()
    return project.workspace.patches


def test_reads_what_was_generated(patches, project):
    made = generate(project.workspace, project.repository).series
    assert load_series(patches) == made
    assert load_series(patches).digest == made.digest
    assert [patch.title for patch in made.patches] == ["types", "align"]


def test_the_digest_follows_bytes_names_and_order(patches):
    seen = {load_series(patches).digest}
    (patches / "types.patch").write_bytes((patches / "types.patch").read_bytes() + b"\n")
    seen.add(load_series(patches).digest)
    edit(patches / "series", "types.patch\nalign.patch\n", "align.patch\ntypes.patch\n")
    seen.add(load_series(patches).digest)
    (patches / "align.patch").rename(patches / "aligned.patch")
    edit(patches / "series", "align.patch", "aligned.patch")
    seen.add(load_series(patches).digest)
    assert len(seen) == 4


def test_no_series_is_told(tmp_path):
    with pytest.raises(ExpectedError, match="There is no file") as told:
        load_series(tmp_path)
    assert told.value.hint == "qlutattn generate"


def test_an_empty_series_is_told(tmp_path):
    (tmp_path / "series").write_text("# nothing\n")
    with pytest.raises(ExpectedError, match="lists no patch"):
        load_series(tmp_path)


def test_a_missing_patch_is_told(patches):
    (patches / "types.patch").unlink()
    with pytest.raises(ExpectedError, match=r"types\.patch is listed in series but cannot be read"):
        load_series(patches)


def test_crlf_patches_are_told(patches):
    data = (patches / "types.patch").read_bytes()
    (patches / "types.patch").write_bytes(data.replace(b"\n", b"\r\n"))
    with pytest.raises(ExpectedError, match="CRLF line endings"):
        load_series(patches)


def test_a_patch_is_taken_apart(patches):
    data = (patches / "types.patch").read_bytes()
    files = split_patch(data)
    assert [(file.path, file.is_new, file.changed_lines) for file in files] == [
        ("ggml/include/ggml.h", False, 10),
        ("ggml/src/ggml.c", False, 1),
        ("ggml/src/qlutattn/qlutattn.c", True, 1),
        ("ggml/src/qlutattn/traits.inc", True, 8),
    ]
    assert data.endswith(b"".join(file.data for file in files)) or data.rstrip(b"\n").endswith(
        b"".join(file.data for file in files).rstrip(b"\n")
    )


def test_lines_that_look_like_headers_are_counted_as_content():
    data = (
        b"diff --git a/x b/x\nindex 1..2 100644\n--- a/x\n+++ b/x\n"
        b"@@ -1,3 +1,3 @@\n a\n--- gone\n+++ come\n c\n"
        b"@@ -9 +9,2 @@ there\n q\n+@@ -1 +1 @@\n\\ No newline at end of file\n"
    )
    (file,) = split_patch(data)
    assert (file.path, file.changed_lines) == ("x", 3)
    assert [hunk.line for hunk in file.hunks] == [1, 9]
    assert file.data == data
