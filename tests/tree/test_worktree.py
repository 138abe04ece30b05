"""apply and revert: wholly or not at all, again without harm, and nothing of the user's is lost."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace

import pytest
from helpers import edit, git, snapshot, together

from qlutattn_patch.patches.generate import generate
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.system import lock
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.lock import locked
from qlutattn_patch.tree.worktree import apply, revert, state_folder


@pytest.fixture
def made(project):
    """A project whose patches are generated."""
    generate(project.workspace, project.repository).write()
    return project


def do_apply(project):
    return apply(project.workspace, load_series(project.workspace.patches))


def do_revert(project):
    return revert(project.workspace)


def am_tree(project, folder):
    """The files after `git am` of the series, and their tree id."""
    git(project.root, "clone", "--quiet", str(project.upstream), str(folder))
    names = [patch.name for patch in load_series(project.workspace.patches).patches]
    git(folder, "am", "--quiet", *(str(project.workspace.patches / name) for name in names))
    return snapshot(folder), git(folder, "rev-parse", "HEAD^{tree}")


def receipt(project):
    return json.loads((project.tree / ".git" / "qlutattn" / "receipt.json").read_text())


def change_templates(project):
    """Make the series another one: a file goes, a file comes, a text changes, a hook goes."""
    templates = project.workspace.templates
    edit(templates / "hooks" / "align.toml", '"tools/prüf stand/run.sh"', '"tools/neu.txt"')
    edit(templates / "hooks" / "align.toml", "// third", "// the third")
    (templates / "overlay/tools/prüf stand/run.sh").unlink()
    (templates / "overlay/tools/neu.txt").write_text("new\n")
    generate(project.workspace, project.repository).write()


def test_apply_gives_what_git_am_gives(made, tmp_path):
    head, index = git(made.tree, "rev-parse", "HEAD"), (made.tree / ".git" / "index").read_bytes()
    assert do_apply(made) is True
    files, tree = am_tree(made, tmp_path / "am")
    assert snapshot(made.tree) == files
    assert receipt(made)["result"] == tree
    assert git(made.tree, "rev-parse", "HEAD") == head
    assert (made.tree / ".git" / "index").read_bytes() == index


def test_revert_gives_back_the_pristine_base(made):
    before = snapshot(made.tree)
    do_apply(made)
    assert snapshot(made.tree) != before
    assert do_revert(made) is True
    assert snapshot(made.tree) == before
    assert git(made.tree, "status", "--porcelain") == ""
    assert do_revert(made) is False


def test_a_second_apply_touches_nothing(made):
    do_apply(made)
    times = {path: path.stat().st_mtime_ns for path in made.tree.rglob("*") if ".git" not in path.parts}
    assert do_apply(made) is False
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_changed_series_goes_over_the_old_one_and_touches_only_what_differs(made, tmp_path):
    do_apply(made)
    same = made.tree / "ggml/include/ggml.h"
    before = same.stat().st_mtime_ns
    time.sleep(0.01)
    change_templates(made)
    assert do_apply(made) is True
    files, tree = am_tree(made, tmp_path / "am")
    assert snapshot(made.tree) == files
    assert receipt(made)["result"] == tree
    assert same.stat().st_mtime_ns == before


def test_files_that_went_missing_come_back(made):
    do_apply(made)
    applied = snapshot(made.tree)
    git(made.tree, "checkout", "--", ".")
    git(made.tree, "clean", "-fdq")
    assert do_apply(made) is True
    assert snapshot(made.tree) == applied


@pytest.mark.parametrize("command", [do_apply, do_revert])
@pytest.mark.parametrize(
    "path", ["LICENSE", "ggml/src/ggml.c", "ggml/src/qlutattn/qlutattn.c", "mine ü.txt", "tools/mine.txt"]
)
def test_a_users_edit_is_refused_and_kept(made, command, path):
    do_apply(made)
    (made.tree / path).write_text("mine\n")
    before = snapshot(made.tree)
    with pytest.raises(ExpectedError, match="that qlutattn did not make") as told:
        command(made)
    assert told.value.cause.splitlines()[1:] == [f"  {path}"]
    assert snapshot(made.tree) == before


def test_a_dirty_tree_is_refused_at_the_first_apply(made):
    (made.tree / "LICENSE").unlink()
    (made.tree / "new").write_text("mine\n")
    before = snapshot(made.tree)
    with pytest.raises(ExpectedError) as told:
        do_apply(made)
    assert told.value.cause.splitlines()[1:] == ["  LICENSE", "  new"]
    assert snapshot(made.tree) == before


def test_staged_changes_are_refused(made):
    do_apply(made)
    git(made.tree, "add", "ggml/src/ggml.c")
    with pytest.raises(ExpectedError, match=r"ggml/src/ggml\.c"):
        do_revert(made)


def test_an_ignored_file_in_the_way_is_refused_and_kept(made):
    with (made.tree / ".git" / "info" / "exclude").open("a") as file:
        file.write("/tools/\n")
    (made.tree / "tools/prüf stand").mkdir(parents=True)
    (made.tree / "tools/prüf stand/main.c").write_text("mine\n")
    with pytest.raises(ExpectedError, match="is in the way"):
        do_apply(made)
    assert (made.tree / "tools/prüf stand/main.c").read_text() == "mine\n"
    assert git(made.tree, "status", "--porcelain") == ""


def test_ignored_files_are_left_alone(made):
    do_apply(made)
    (made.tree / "build").mkdir()
    (made.tree / "build" / "a.o").write_text("object\n")
    do_revert(made)
    assert (made.tree / "build" / "a.o").read_text() == "object\n"


def test_a_missing_git_folder_is_never_the_outer_repository(made):
    shutil.rmtree(made.tree / ".git")
    before = snapshot(made.root)
    for command in (do_apply, do_revert):
        with pytest.raises(ExpectedError, match=r"not the top of a git work tree") as told:
            command(made)
        assert told.value.hint == "move it away, then: qlutattn vendor"
    assert snapshot(made.root) == before


def test_no_tree_is_told(made):
    shutil.rmtree(made.tree)
    with pytest.raises(ExpectedError, match="There is no tree") as told:
        do_apply(made)
    assert told.value.hint == "qlutattn vendor"


def test_a_damaged_receipt_is_told(made):
    do_apply(made)
    path = made.tree / ".git" / "qlutattn" / "receipt.json"
    for damage in ("{", "[]", '{"schema": 2}', '{"schema": 1, "files": {}}'):
        path.write_text(damage)
        with pytest.raises(ExpectedError, match="cannot be read"):
            do_apply(made)


def own_checkout(project, tmp_path):
    """The user's own checkout, at a newer commit that still suits."""
    git(tmp_path, "clone", "--quiet", str(project.upstream), "mein Baum")
    tree = tmp_path / "mein Baum"
    edit(tree / "ggml/src/ggml.c", "int ggml_second", "\n\n// moved on\nint ggml_second")
    git(tree, "commit", "--quiet", "--all", "-m", "newer")
    return replace(project, workspace=replace(project.workspace, tree=tree))


def test_a_users_own_checkout(made, tmp_path):
    own = own_checkout(made, tmp_path)
    before = snapshot(own.tree)
    head = git(own.tree, "rev-parse", "HEAD")
    do_apply(own)
    applied = snapshot(own.tree)
    git(own.root, "clone", "--quiet", str(own.tree), str(tmp_path / "am"))
    names = [patch.name for patch in load_series(own.workspace.patches).patches]
    git(tmp_path / "am", "am", "--quiet", *(str(own.workspace.patches / name) for name in names))
    assert applied == snapshot(tmp_path / "am")
    do_revert(own)
    assert snapshot(own.tree) == before
    assert git(own.tree, "rev-parse", "HEAD") == head


def test_every_hunk_that_does_not_fit_is_told(made, tmp_path):
    own = own_checkout(made, tmp_path)
    edit(own.tree / "ggml/include/ggml.h", "GGML_TYPE_COUNT   = 43", "GGML_TYPE_COUNT = 43")
    edit(own.tree / "ggml/src/ggml.c", '#include "ggml.h"', '#include "ggml-new.h"')
    edit(own.tree / "CMakeLists.txt", "add_subdirectory(ggml)\n", "add_subdirectory(other)\n")
    (own.tree / "tools/prüf stand").mkdir(parents=True)
    (own.tree / "tools/prüf stand/main.c").write_text("theirs\n")
    git(own.tree, "add", "--all")
    git(own.tree, "commit", "--quiet", "-m", "unsuitable")
    before = snapshot(own.tree)
    with pytest.raises(ExpectedError) as told:
        do_apply(own)
    lines = told.value.cause.splitlines()
    assert lines[0].startswith("2 of the patches do not fit ")
    assert [line.strip().rsplit(": ", 1)[0] for line in lines[1:]] == [
        "types.patch: ggml/include/ggml.h",
        "types.patch: ggml/src/ggml.c",
        "align.patch: CMakeLists.txt",
        "align.patch: tools/prüf stand/main.c",
    ]
    assert "already exists" in lines[4]
    assert snapshot(own.tree) == before


def test_only_the_hunk_that_does_not_fit_is_told(made, tmp_path):
    hook = '\n[[hook]]\nfile = "ggml/src/ggml.c"\nanchor = "    return 2;\\n"\nplace = "before"\ntext = "    // 2\\n"\n'
    types = made.workspace.templates / "hooks" / "types.toml"
    types.write_text(types.read_text() + hook)
    generate(made.workspace, made.repository).write()
    own = own_checkout(made, tmp_path)
    edit(own.tree / "ggml/src/ggml.c", "    return 2;", "    return 22;")
    git(own.tree, "commit", "--quiet", "--all", "-m", "unsuitable")
    with pytest.raises(ExpectedError) as told:
        do_apply(own)
    lines = told.value.cause.splitlines()
    assert lines[0].startswith("1 of the patches does not fit ")
    assert len(lines) == 2
    assert lines[1].startswith("  types.patch: ggml/src/ggml.c: the hunk -10,")
    assert lines[1].endswith("(it begins with '+    // 2')")


def test_something_that_is_no_llama_cpp_is_refused(made, tmp_path):
    git(tmp_path, "init", "--quiet", "other")
    (tmp_path / "other" / "a").write_text("a\n")
    git(tmp_path / "other", "add", "a")
    git(tmp_path / "other", "commit", "--quiet", "-m", "a")
    own = replace(made, workspace=replace(made.workspace, tree=tmp_path / "other"))
    with pytest.raises(ExpectedError, match=r"is not llama\.cpp"):
        do_apply(own)


def test_two_applies_at_once(made, tmp_path):
    assert together(*[lambda: do_apply(made)] * 3) == [0, 0, 0]
    assert snapshot(made.tree) == am_tree(made, tmp_path / "am")[0]


def test_a_second_command_refuses_in_words_after_a_while(made, monkeypatch, capsys):
    monkeypatch.setattr(lock, "PATIENCE", 0.1)

    def while_held():
        with pytest.raises(ExpectedError, match="Another qlutattn command is still working on"):
            do_apply(made)

    before = snapshot(made.tree)
    with locked(state_folder(made.repository) / "lock", "the tree"):
        assert together(while_held) == [0]
    assert snapshot(made.tree) == before
    assert do_apply(made) is True
