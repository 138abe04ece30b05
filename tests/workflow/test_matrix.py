"""Many upstreams, each in a work tree of its own: the first stage that fails, told, remembered, and shared out."""

from __future__ import annotations

import json
from pathlib import Path

import fake_tools
import pytest
from helpers import GGML_C, UPSTREAM, Project, edit, git, make_upstream, snapshot
from releases import copy_from, make_release, only_index, pin_release
from upstream_projects import add_proof, built, put_align, release

from qlutattn_patch.commands.main import run
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.upstream import releases
from qlutattn_patch.upstream.pin import load_pin
from qlutattn_patch.workflow.documents import Row
from qlutattn_patch.workflow.matrix import Checker, details, table
from qlutattn_patch.workspace import Workspace, cache_dir

MOVED = {"CMakeLists.txt": "project(llama.cpp)\nadd_subdirectory(ggml EXCLUDE_FROM_ALL)\n"}
OTHER = """
[[hook.or]]
upstream = "0.3 and older"
anchor = "    return 33;\\n"
"""
OPTIONAL = """
[optional]
since = "0.3"
because = "Before 0.3 there was no tail."
"""
TAIL_TOML = """\
subject = "tail"
why = "w"
not_a_new_file = "n"
until = "u"
overlay = ["src/tail.cpp"]

[[hook]]
file = "LICENSE"
anchor = "MIT\\n"
place = "after"
text = "tail\\n"
"""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return copy_from(only_index(tmp_path / "index", monkeypatch), monkeypatch)


@pytest.fixture
def here(project: Project, index: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that the commands find, pinned to the release 0.4 of four."""
    for number in range(1, 4):
        make_release(index, f"0.{number}", {"docs/Größe und Maß.md": f"{number}\n"}, f"## [0.{number}]\n")
    changelog = "# Changelog\n\n## [0.4]\n\n- feat: update to ggml-org/llama.cpp@abcdef012\n\n## [0.3]\n"
    pin_release(project, make_release(index, "0.4", says=changelog), "0.4")
    find = Workspace.find.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Workspace, "find", classmethod(lambda cls, tree=None: find(cls, tree, project.root)))
    return project


def checker(project: Project, until: str = "applied") -> Checker:
    return Checker(project.root, cache_dir(), until=until)


def checked(project: Project, version: str, until: str = "applied") -> Row:
    return checker(project, until).check(release(project, version))


def matrix(capfd: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> list[dict[str, object]]:
    capfd.readouterr()
    assert run(["matrix", "--json", "--until", "applied", *argv]) == code
    found = json.loads(capfd.readouterr().out)
    assert (found["schema"], found["ok"]) == (1, code == 0)
    rows: list[dict[str, object]] = found["rows"]
    assert all({"version", "commit", "stage", "ok", "detail"} <= set(row) for row in rows)
    return rows


def add_tail(project: Project, optional: str = OPTIONAL) -> None:
    hooks = project.workspace.templates / "hooks"
    edit(hooks / "series", "align\n", "align\ntail\n")
    (hooks / "tail.toml").write_text(TAIL_TOML + optional)
    (project.workspace.templates / "overlay" / "src").mkdir()
    (project.workspace.templates / "overlay" / "src" / "tail.cpp").write_text("int tail;\n")


# --- the rows


def test_the_newest_releases_by_default(here, index, capfd):
    for number in range(5, 11):
        make_release(index, f"0.{number}")
    assert [row["version"] for row in matrix(capfd)] == [f"0.{number}" for number in range(10, 2, -1)]


def test_the_release_says_which_commit_it_is(here, capfd):
    (pinned, older) = matrix(capfd, "0.4", "0.3")
    assert pinned["commit"] == load_pin(here.workspace.pin_file).commit  # whole, since these are the pin's files
    assert older["commit"] is None  # the changelog of 0.3 names none
    edit(here.workspace.pin_file, f'"{pinned["tree"]}"', f'"{"0" * 40}"')
    assert release(here, "0.4").commit == "abcdef012"


def test_the_project_and_its_tree_stay_as_they_are(here, capfd):
    before = snapshot(here.root)
    matrix(capfd, "0.4", "0.1")
    assert snapshot(here.root) == before


def test_a_moved_anchor_fails_one_row_alone(here, index, capfd):
    make_release(index, "0.5", MOVED)
    rows = matrix(capfd, "0.5", "0.4", code=1)
    assert [(row["version"], row["stage"], row["ok"]) for row in rows] == [
        ("0.5", "anchors", False),
        ("0.4", "applied", True),
    ]
    (moved,) = rows[0]["moved"]
    assert moved == {
        "hook": "align.toml [[hook]] 1",
        "patch": "align",
        "file": "CMakeLists.txt",
        "anchor": "add_subdirectory(ggml)\n",
        "found": 0,
        "near": [{"line": 2, "text": "add_subdirectory(ggml EXCLUDE_FROM_ALL)"}],
        "follows": None,
    }


def test_the_table_names_the_stage_and_the_nearest_line(here, index, capfd):
    make_release(index, "0.5", MOVED)
    capfd.readouterr()
    assert run(["matrix", "--until", "applied", "0.5", "0.4"]) == 1
    out = capfd.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert ["0.5", "-", "FAIL", *"-----"] in lines
    assert any(line[:1] == ["0.4"] and line[2:] == ["ok", "ok", "ok", *"---"] for line in lines)
    assert "FAILED 0.5, anchors: 1 hook does not fit" in out
    assert "near it, line 2: add_subdirectory(ggml EXCLUDE_FROM_ALL)" in out
    assert out.splitlines()[-1] == "FAIL  1 of 2 upstreams: applied"


def test_tables_that_do_not_suit_fail_at_the_anchors(here, index):
    make_release(index, "0.5", {"ggml/include/ggml.h": UPSTREAM["ggml/include/ggml.h"].replace("= 42", "= 48")})
    row = checked(here, "0.5")
    assert (row.stage, row.ok) == ("anchors", False)
    assert "id 48 of 'qlutattn_k1_128x128': GGML_TYPE_Q2_0" in row.detail


def test_what_no_hook_can_edit_fails_when_generating(here, index):
    make_release(index, "0.5", {"CMakeLists.txt": "add_subdirectory(ggml)\r\n"})
    assert checked(here, "0.5").stage == "generated"


def test_a_release_that_is_not_there_is_a_row(here, capfd):
    rows = matrix(capfd, "0.9", "0.4", code=1)
    assert (rows[0]["stage"], rows[0]["ok"], rows[1]["ok"]) == ("source", False, True)
    assert "could not download tiny-llama==0.9" in str(rows[0]["detail"])


def test_without_an_index_the_versions_must_be_named(here, index, capfd, monkeypatch):
    matrix(capfd, "0.3")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index / "gone"))
    assert run(["matrix", "--until", "applied"]) == 3
    assert "name the versions; those in the cache" in capfd.readouterr().err
    assert matrix(capfd, "0.3")[0]["ok"]


# --- hooks with forms, and patches that an older upstream does without


def test_forms_serve_upstreams_that_look_otherwise(here, index, capfd):
    older = {"ggml/src/ggml.c": GGML_C.replace("return 3;", "return 33;")}
    make_release(index, "0.2.5", older)
    assert not matrix(capfd, "0.2.5", code=1)[0]["ok"]
    path = here.workspace.templates / "hooks" / "align.toml"
    path.write_text(path.read_text() + OTHER)
    assert [row["ok"] for row in matrix(capfd, "0.2.5", "0.4")] == [True, True]
    text = (release(here, "0.2.5").folder / "ggml/src/ggml.c").read_text()
    assert "    // third\n    return 33;\n" in text


def test_an_older_release_may_do_without_an_optional_patch(here, index, capfd):
    add_tail(here)
    make_release(index, "0.2.5", {"LICENSE": "BSD\n"})
    rows = matrix(capfd, "0.4", "0.2.5")
    assert rows[0]["optional"] == [{"patch": "tail", "stage": "generated", "ok": True, "needed": True, "detail": ""}]
    (part,) = rows[1]["optional"]
    assert (part["ok"], part["needed"], part["stage"]) == (False, False, "anchors")
    assert part["detail"].startswith("Before 0.3 there was no tail. (1 hook does not fit")
    folder = release(here, "0.2.5").folder
    assert not (folder / "src/tail.cpp").exists()
    assert (folder / "ggml/src/qlutattn/qlutattn.c").exists()
    row = checked(here, "0.2.5")
    assert table([row])[0][-1] == "without"
    assert details([row])[0].startswith("0.2.5 does without 'tail': Before 0.3 there was no tail.")


def test_a_newer_one_and_a_commit_may_not(here, index, tmp_path):
    add_tail(here)
    make_release(index, "0.10", {"LICENSE": "BSD\n"})
    row = checked(here, "0.10")
    assert (row.stage, row.ok) == ("anchors", False)
    assert row.detail.startswith("tail: 1 hook does not fit")
    clone = make_upstream(tmp_path / "clone", {"LICENSE": "BSD\n"})
    assert not checker(here).check(releases.head_of(clone, cache_dir())).ok


def test_an_optional_patch_excuses_no_other(here, index):
    add_tail(here)
    make_release(index, "0.2.5", {"LICENSE": "BSD\n", **MOVED})
    row = checked(here, "0.2.5")
    assert not row.ok
    assert {moved.patch for moved in row.moved} == {"align", "tail"}


# --- checkouts and commits


def test_a_checkout_is_read_at_its_head_and_not_changed(here, tmp_path, capfd):
    clone = make_upstream(tmp_path / "mein llämä")
    edit(clone / "CMakeLists.txt", "add_subdirectory(ggml)", "nothing()")
    before = snapshot(clone)
    rows = matrix(capfd, "--tree", str(clone))
    assert (rows[0]["version"], rows[0]["commit"]) == (str(clone), git(clone, "rev-parse", "HEAD"))
    assert snapshot(clone) == before
    git(clone, "commit", "--quiet", "--all", "-m", "moved")
    assert matrix(capfd, "--tree", str(clone), code=1)[0]["stage"] == "anchors"


def test_commits_of_a_clone(here, tmp_path, capfd):
    clone = make_upstream(tmp_path / "clone")
    edit(clone / "CMakeLists.txt", "add_subdirectory(ggml)", "nothing()")
    git(clone, "commit", "--quiet", "--all", "-m", "moved")
    rows = matrix(capfd, "--clone", str(clone), "HEAD~1", "HEAD", "v9", code=1)
    assert [(row["ok"], row["stage"]) for row in rows] == [(True, "applied"), (False, "anchors"), (False, "source")]
    assert "has no commit 'v9'" in str(rows[2]["detail"])
    assert "a commit needs a clone" in str(matrix(capfd, "main", code=1)[0]["detail"])


# --- remembered


def test_what_passed_is_remembered_until_something_changes(here, index, capfd):
    assert [row["cached"] for row in matrix(capfd, "0.4", "0.3")] == [False, False]
    for archive in [*index.glob("*.gz"), *(cache_dir() / "archives").glob("*.gz")]:
        archive.unlink()
    assert [row["cached"] for row in matrix(capfd, "0.4", "0.3")] == [True, True]
    edit(here.workspace.templates / "hooks" / "align.toml", "// third", "// the third")
    rows = matrix(capfd, "0.4")
    assert not rows[0]["cached"]
    assert "// the third" in (release(here, "0.4").folder / "ggml/src/ggml.c").read_text()


def test_what_failed_is_tried_again(here, index, capfd):
    make_release(index, "0.5", MOVED)
    for _ in range(2):
        assert not matrix(capfd, "0.5", code=1)[0]["cached"]


def test_a_damaged_receipt_counts_for_nothing(here, capfd):
    matrix(capfd, "0.4")
    (receipt,) = (cache_dir() / "matrix").glob("*.json")
    receipt.write_bytes(receipt.read_bytes()[:-9])
    assert not matrix(capfd, "0.4")[0]["cached"]
    assert matrix(capfd, "0.4")[0]["cached"]


def test_a_work_tree_that_is_gone_is_made_again(here, capfd):
    matrix(capfd, "0.3")
    folder = release(here, "0.3").folder
    folder.rename(folder.with_name("away"))
    edit(here.workspace.templates / "hooks" / "align.toml", "// third", "// the third")
    assert matrix(capfd, "0.3")[0]["ok"]


# --- shared out


def test_shards_are_everything_once(here, capfd):
    names = ["0.4", "0.3", "0.2", "0.1"]
    found = [[row["version"] for row in matrix(capfd, *names, "--shard", f"{part}/3")] for part in (1, 2, 3)]
    assert found == [["0.4", "0.1"], ["0.3"], ["0.2"]]


@pytest.mark.parametrize("shard", ["0/3", "4/3", "x", "1/", "1/0", "-1/2"])
def test_a_shard_that_is_none_is_wrong_usage(here, shard):
    assert run(["matrix", "--shard", shard]) == 2


# --- compiled and aligned, with stand-ins for the tools


def test_all_the_way(here, tools):
    add_proof(here)
    put_align(here, "0.4")
    row = checked(here, "0.4", "aligned")
    assert (row.stage, row.ok, row.cases, row.detail) == ("aligned", True, 1, "")
    assert table([row])[0][2:] == [*["ok"] * 5, "1"]
    assert built(tools) == [["align_attn"]]
    again = checked(here, "0.4", "aligned")
    assert (again.cached, len(built(tools))) == (True, 1)
    fake_tools.says(tools, "c++", "another compiler 2.0")
    assert not checked(here, "0.4", "aligned").cached


def test_a_build_that_fails(here, tools):
    add_proof(here)
    fake_tools.behaves(tools, "cmake--build", 1, "x.c:1:1: error: no\n")
    row = checked(here, "0.4", "aligned")
    assert (row.stage, row.ok) == ("compiled", False)
    assert "The build of align_attn failed" in row.detail


def test_an_align_that_fails(here, tools):
    add_proof(here)
    put_align(here, "0.4", ok=False)
    row = checked(here, "0.4", "aligned")
    assert (row.stage, row.ok) == ("aligned", False)
    assert "0 cases passed, 1 failed" in row.detail
    assert "align_attn: too far" in row.detail


def test_the_sources_of_llama_that_a_patch_brings_are_compiled(here, tools):
    add_proof(here)
    add_tail(here)
    row = checked(here, "0.4", "compiled")
    folder = release(here, "0.4").folder
    assert built(tools) == [["align_attn"], ["align_attn", f"{folder}/src/tail.cpp^"]]
    assert (row.ok, row.optional[0].stage) == (True, "compiled")


def test_a_release_that_cannot_be_told_from_none_is_refused(here):
    with pytest.raises(ExpectedError, match=r"There is no release 0\.7 of tiny-llama"):
        releases.between(load_pin(here.workspace.pin_file), "0.1", "0.7")
