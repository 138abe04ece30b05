"""A patched tree of a small project to export from, and what must hold after each export."""

from __future__ import annotations

from pathlib import Path

from helpers import Project, git, snapshot

from qlutattn_patch.export.export import Exported, export
from qlutattn_patch.patches.generate import generate
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.tree.worktree import apply
from qlutattn_patch.workflow.status import read_status

H, C, CMAKE = "ggml/include/ggml.h", "ggml/src/ggml.c", "CMakeLists.txt"
PLAIN, TABLE, MAIN = "ggml/src/qlutattn/qlutattn.c", "ggml/src/qlutattn/traits.inc", "tools/prüf stand/main.c"
MORE_TOML = '''\
subject = "more"
why = "For the tests."
not_a_new_file = "No."
until = "Never."

# said by hand: stays where it is
[[hook]]
file = "ggml/src/ggml.c"
anchor = "    return 1;\\n" # the first one
place = "replace"
text = """
    // one more
    int one = 1;
    return one; // a { too much: {{ '{' }}{
"""   # stays, too

[[hook]]
file = "ggml/src/ggml.c"
count = 3
anchor = "(void) {\\n"
place = "before"
text = "_of"

[[hook]]
file = "docs/long.md"
anchor = "the seventh\\n"
place = "after"
text = "and a half\\n"

[[hook.or]]
upstream = "0.1"
anchor = "number seven\\n"

[[hook]]
file = "docs/long.md"
anchor = "gone\\n"
place = "after"
text = "never\\n"

[[hook.or]]
upstream = "0.2"
anchor = "the ninth\\n"
text = "nine\\n"
'''
LONG = "the first\n\n}\n\nthe fourth\n}\nthe sixth\nthe seventh\n}\nthe ninth\n}\nthe last\n"


def patched(project: Project) -> Project:
    generate(project.workspace, project.repository).write()
    apply(project.workspace, load_series(project.workspace.patches))
    return project


def exports(project: Project) -> Exported:
    """Export, and see that the templates give the tree as it was edited, and that nothing is stale."""
    wanted = snapshot(project.tree)
    exported = export(project.workspace)
    assert exported.refused == ()
    check_is(project, wanted)
    return exported


def check_is(project: Project, wanted: dict[str, tuple[bytes, bool]]) -> None:
    assert snapshot(project.tree) == wanted
    assert generate(project.workspace, project.repository).drift() == []
    assert (read_status(project.workspace).state, read_status(project.workspace).stale) == ("applied", ())
    series = load_series(project.workspace.patches)
    assert not apply(project.workspace, series)
    git(project.tree, "clean", "--quiet", "-dffx")
    git(project.tree, "checkout", "--quiet", ".")
    assert apply(project.workspace, series)
    assert snapshot(project.tree) == wanted


def everything(project: Project) -> dict[str, tuple[bytes, bool]]:
    """All files of the project and its tree, less the locks."""
    return {path: found for path, found in snapshot(project.root).items() if not path.endswith("lock")}


def refuses(project: Project, *said: str) -> str:
    """Export refuses for these reasons, and changes nothing; returns all that is reported."""
    before = everything(project)
    exported = export(project.workspace)
    assert everything(project) == before
    text = "\n".join(line for refused in exported.refused for line in refused.lines)
    for one in said:
        assert one in text, text
    return text


def hook_file(project: Project, name: str) -> Path:
    return project.workspace.templates / "hooks" / f"{name}.toml"
