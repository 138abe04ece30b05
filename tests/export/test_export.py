"""Edits of the patched tree come back to the templates: generate then gives exactly that tree, or nothing changes."""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import ROOT, Project, edit, git, killed_at, make_project, snapshot

from qlutattn_patch.commands.main import run
from qlutattn_patch.export.export import Exported, export
from qlutattn_patch.patches.generate import generate
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.tree.worktree import apply
from qlutattn_patch.workflow.status import read_status
from qlutattn_patch.workspace import Workspace

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
    return one; // a { too much: {{ '{{' }}
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


@pytest.fixture
def here(project: Project) -> Project:
    return patched(project)


@pytest.fixture
def more(tmp_path: Path) -> Project:
    """A project with one more patch, whose hooks have variants, and more than one place."""
    project = make_project(tmp_path / "Größe 2", {"docs/long.md": LONG})
    hooks = project.workspace.templates / "hooks"
    (hooks / "more.toml").write_text(MORE_TOML, "utf-8")
    edit(hooks / "series", "align\n", "align\nmore\n")
    return patched(project)


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
    """Export refuses in words, and changes nothing."""
    before = everything(project)
    exported = export(project.workspace)
    assert everything(project) == before
    text = "\n".join(line for refused in exported.refused for line in refused.lines)
    for one in said:
        assert one in text, text
    return text


def hook_file(project: Project, name: str) -> Path:
    return project.workspace.templates / "hooks" / f"{name}.toml"


# --- what has a home


def test_edits_of_every_kind_come_back_together(here, capfd):
    edit(here.tree / PLAIN, "return", "return 1 +")
    edit(here.tree / C, "    // third\n", "    // the third\n    // of three\n")
    edit(here.tree / CMAKE, "add_subdirectory(tools)\n", "add_subdirectory(tools)\nmessage(more)\n")
    exported = exports(here)
    assert [(item.file, item.to, item.hook) for item in exported.carried] == [
        (CMAKE, "templates/hooks/align.toml", 1),
        (C, "templates/hooks/align.toml", 2),
        (PLAIN, f"templates/overlay/{PLAIN}", None),
    ]
    text = hook_file(here, "align").read_text()
    assert "text = '''\nadd_subdirectory(tools)\nmessage(more)\n'''\n\n[[hook]]\n" in text
    assert "place = \"before\"\ntext = '''\n    // the third\n    // of three\n'''\n" in text
    assert "docs/patches.md" in exported.changed
    assert capfd.readouterr().err == ""


def test_nothing_edited_changes_nothing(here):
    before = everything(here)
    assert export(here.workspace) == Exported((), (), ())
    assert everything(here) == before


def test_a_literal_part_of_a_template_is_edited_in_the_template(here):
    edit(here.tree / TABLE, " ", " =  ")
    edit(here.tree / H, "        GGML_TYPE_COUNT", "        // one more than the last\n        GGML_TYPE_COUNT")
    exports(here)
    table = (here.workspace.templates / "overlay" / f"{TABLE}.j2").read_text()
    assert table == "{% for t in types %}\n{{ t.name }} =  {{ t.type_size }}\n{% endfor %}\n"
    assert (
        "{% endfor %}\n        // one more than the last\n        GGML_TYPE_COUNT"
        in hook_file(here, "types").read_text()
    )


def test_the_rest_of_the_toml_stays_as_it_is(more):
    edit(more.tree / C, "    int one = 1;\n", "    int one = '''1'''; \\ {{2}}\n")
    before = hook_file(more, "more").read_text()
    exports(more)
    after = hook_file(more, "more").read_text()
    assert re.sub(r'text = """\n    // one.*?"""   #', "", after, flags=re.S) == re.sub(
        r'text = """\n    // one.*?"""   #', "", before, flags=re.S
    )
    assert "    int one = '''1'''; \\\\ {{ '{' }}{2}}\n    return one; // a { too much: {{ '{{' }}\n" in after


def test_crlf_line_ends_of_a_hook_file_stay(here):
    path = hook_file(here, "align")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    edit(here.tree / C, "    // third\n", "    // the third\n    // one\n")
    exports(here)
    assert b"\n" not in path.read_bytes().replace(b"\r\n", b"")
    assert b"    // the third\r\n    // one\r\n" in path.read_bytes()


def test_lines_beside_the_text_of_a_hook_are_its_own(here):
    edit(here.tree / C, "    // third\n", "    // before\n    // third\n    // after\n")
    edit(here.tree / C, '#include "qlutattn/traits.inc"\n', '#include "a.h"\n#include "qlutattn/traits.inc"\n\n')
    exports(here)


def test_all_places_of_a_hook_edited_alike(more):
    edit(more.tree / C, "_of(void)", "_of_it(void)")
    assert exports(more).carried[0].hook == 2
    edit(more.tree / C, "ggml_second_of_it", "ggml_second_of_that")
    refuses(more, f"{C}, line ", "puts its text in 3 places, and they are not edited alike")


def test_only_the_variant_that_fits_is_edited(more):
    edit(more.tree / "docs/long.md", "nine\n", "nine and a half\n")
    exported = exports(more)
    assert [(item.hook, item.form) for item in exported.carried] == [(4, 1)]
    assert "other variants for other upstreams, which stay" in exported.warnings[0]
    assert 'text = "never\\n"' in hook_file(more, "more").read_text()
    assert 'text = "nine and a half\\n"' in hook_file(more, "more").read_text()


def test_a_text_that_variants_share_is_said_to_be_edited_for_all(more):
    edit(more.tree / "docs/long.md", "and a half\n", "and three quarters\n")
    (warning,) = exports(more).warnings
    assert "templates/hooks/more.toml [[hook]] 3: another variant of this hook has the same text" in warning


def test_what_is_in_the_templates_by_now_counts_as_carried(here):
    """A maintainer who made the same edit by hand, or took an overlay file away."""
    edit(here.tree / C, "    // third\n", "    // 3\n")
    edit(hook_file(here, "align"), "    // third\\n", "    // 3\\n")
    (here.tree / MAIN).unlink()
    edit(hook_file(here, "align"), f'"{MAIN}", ', "")
    (here.workspace.templates / "overlay" / MAIN).unlink()
    exports(here)


def test_the_users_own_checkout(here, tmp_path):
    git(tmp_path, "clone", "--quiet", str(here.upstream), "mein llama.cpp")
    own = replace(here, workspace=replace(here.workspace, tree=tmp_path / "mein llama.cpp"))
    apply(own.workspace, load_series(own.workspace.patches))
    edit(own.tree / C, "    // third\n", "    // 3\n")
    exports(own)


# --- what has none


def new_hooks(said: str) -> list[tuple[str, str]]:
    """The files that are named, and the TOML to add to each, as it is printed."""
    return re.findall(
        r"add this to the end of templates/hooks/(\S+)\.toml.*?\n\n(\[\[hook\]\]\n.*?\n)(?=\S+, line|\Z|\n)",
        said + "\n",
        re.S,
    )


UPSTREAMS_OWN = {
    "a line changed": (C, "    return 2;\n", "    return 22;\n"),
    "a line added": (C, "    return 2;\n", "    // two\n    return 2;\n"),
    "a line taken": (C, "    return 2;\n", ""),
    "the first line": (C, '#include "ggml.h"\n', '// first\n#include "ggml.h"\n'),
    "the last line": (C, "return 3;\n}\n", "return 3;\n}\n// last\n"),
    "a line that is there often": (C, "    return 2;\n}\n", "    return 2;\n}}\n"),
    "a blank line": (C, "}\n\nint ggml_third", "}\n\n\nint ggml_third"),
    "an anchor": (C, '#include "ggml.h"\n', '#include "ggml.h" // it\n'),
    "quotes and braces": (C, "    return 2;\n", "    return \"'''\"[0] + x{{1}} + '\\n';\n"),
    "a file that no hook edits": ("LICENSE", "MIT\n", "MIT, mostly\n"),
    "a name with spaces": ("docs/Größe und Maß.md", "A name", "Another name"),
}


@pytest.mark.parametrize("name", UPSTREAMS_OWN)
def test_an_edit_of_upstreams_own_text_has_a_home_once_the_hook_is_added_that_is_named(here, name):
    file, old, new = UPSTREAMS_OWN[name]
    edit(here.tree / file, old, new)
    wanted = snapshot(here.tree)
    said = refuses(here, f"{file}, line ", "this is llama.cpp's own text, and not that of a hook")
    assert ("it is the anchor of templates/hooks/types.toml [[hook]] 2" in said) == (name == "an anchor")
    ((patch, toml),) = new_hooks(said)
    with hook_file(here, patch).open("a", encoding="utf-8") as out:
        out.write(f"\n{toml}")
    assert export(here.workspace).refused == ()
    check_is(here, wanted)


def test_every_edit_without_a_home_is_named_and_those_with_one_wait(here):
    edit(here.tree / C, "    // third\n", "    // 3\n")  # this one has a home
    edit(here.tree / C, "    return 1;\n", "    return 11;\n")
    edit(here.tree / H, "int ggml_second(void);\n", "int ggml_second(int);\n")
    (here.tree / "ggml/src/new.c").write_text("int a;\n")
    said = refuses(here, "the nearest is templates/hooks/align.toml [[hook]] 2, with line 18 of the patched file")
    assert f"{C}, line 10: " in said
    hooks = new_hooks(said)
    assert [patch for patch, _ in hooks] == ["types", "align"]
    for patch, toml in hooks:
        with hook_file(here, patch).open("a", encoding="utf-8") as out:
            out.write(f"\n{toml}")
    refuses(here, "ggml/src/new.c: no patch brings this file", "the list `overlay` of templates/hooks/types.toml")
    edit(hook_file(here, "types"), "overlay = [", 'overlay = [\n    "ggml/src/new.c",\n   ')
    exported = exports(here)
    assert "templates/overlay/ggml/src/new.c" in exported.changed
    assert (here.workspace.templates / "overlay/ggml/src/new.c").read_text() == "int a;\n"


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (
            TABLE,
            "k2_128x128",
            "k2_64x64",
            "templates/overlay/ggml/src/qlutattn/traits.inc.j2, line 2, from [[type]] of",
        ),
        (TABLE, "v4_128x128 ", "v4_128x128  ", "traits.inc.j2, line 2, which is not rendered just once"),
        (
            H,
            "COUNT   = 54",
            "COUNT   = 55",
            "line 4 of the text of templates/hooks/types.toml [[hook]] 1, from [[type]]",
        ),
        (H, "K1_128x128 = 48", "K1_128x128 = 58", "line 2 of the text of templates/hooks/types.toml [[hook]] 1"),
        (C, "    // third\n", "", "without this text, templates/hooks/align.toml [[hook]] 2 does nothing"),
    ],
)
def test_what_is_made_cannot_be_edited(here, file, old, new, said):
    edit(here.tree / file, old, new)
    line = (here.tree / file).read_text()[: (here.tree / file).read_text().find(new)].count("\n") + 1 if new else None
    told = refuses(here, said, f"{file}, line ")
    if line:
        assert f"{file}, line {line}: " in told


def test_an_edit_that_another_hook_has_its_anchor_in_is_refused(more):
    toml = (
        '[[hook]]\nfile = "ggml/src/ggml.c"\nplace = "after"\nanchor = "    int one = 1;\\n"\ntext = "    one++;\\n"\n'
    )
    with hook_file(more, "more").open("a") as out:
        out.write(f"\n{toml}")
    generate(more.workspace, more.repository).write()
    apply(more.workspace, load_series(more.workspace.patches))
    edit(more.tree / C, "    one++;\n", "    one += 1;\n")  # inside of another hook's text
    exports(more)
    edit(more.tree / C, "    int one = 1;\n", "    int one = 0;\n")
    before = everything(more)
    with pytest.raises(ExpectedError, match=r"do not fit together:\n1 hook does not fit") as told:
        export(more.workspace)
    assert "the anchor 'int one = 1;' must be there once" in told.value.cause
    assert str(more.workspace.templates) in told.value.cause
    assert everything(more) == before


def test_what_is_no_text_or_no_plain_file_is_refused(here):
    for file, data in {PLAIN: b"int a;\r\n", TABLE: b"a\0\n", C: b"\xff\n"}.items():
        (here.tree / file).write_bytes(data)
    (here.tree / MAIN).write_bytes(b"int a;")
    (here.tree / "tools/prüf stand/run.sh").chmod(0o644)
    (here.tree / "scripts/run me.sh").chmod(0o644)
    (here.tree / "LICENSE").unlink()
    (here.tree / H).unlink()
    (here.tree / H).symlink_to("../src/ggml.c")
    said = refuses(
        here,
        f"{PLAIN}: it has CRLF line ends",
        f"{TABLE}: this is not a text",
        f"{C}: this is not a text",
        f"{MAIN}: its last line has no line end",
        "tools/prüf stand/run.sh: its mode is not what its first line asks for",
        f"chmod +x '{here.tree / 'scripts/run me.sh'}'",
        "LICENSE: this file of llama.cpp is deleted",
        f"{H}: this is a link now",
    )
    assert said.count("next: ") == 8


def test_a_deleted_overlay_file_is_refused(here):
    (here.tree / MAIN).unlink()
    refuses(here, "this file is deleted, and templates/hooks/align.toml brings it")


def test_a_listed_file_that_is_no_text_is_refused(here):
    (here.tree / "a.bin").write_bytes(b"\0")
    edit(hook_file(here, "align"), "overlay = [", 'overlay = ["a.bin", ')
    refuses(here, "a.bin: this is not a text in UTF-8")


def test_what_has_changed_in_the_templates_is_kept(here):
    edit(here.workspace.templates / "overlay" / PLAIN, "int q", "long q")
    edit(here.tree / C, "    // third\n", "    // 3\n")
    assert export(here.workspace).refused == ()
    assert (here.tree / PLAIN).read_text().startswith("long q")
    assert read_status(here.workspace).state == "applied"


def test_what_has_changed_in_the_templates_is_not_taken_back(here):
    edit(hook_file(here, "types"), r'traits.inc\"\n"', r'traits.inc\" // new\n"')
    edit(here.tree / C, "    // third\n", "    // 3\n")
    changed = f"{C}, line 2: templates/ have changed for this file since they were applied"
    refuses(here, changed)
    generate(here.workspace, here.repository).write()  # now nothing says what was applied
    refuses(here, changed.replace(", line 2", ""))
    edit(hook_file(here, "types"), " // new", "")
    generate(here.workspace, here.repository).write()
    edit(hook_file(here, "types"), r'traits.inc\"\n"', r'traits.inc\" // new\n"')
    edit(here.tree / C, 'traits.inc"\n', 'traits.inc" // new\n')
    exports(here)


def test_a_file_edited_all_over_is_one_refusal(here):
    text = "".join(f"line {number}\n" for number in range(60))
    (here.tree / "LICENSE").write_text(text)
    git(here.tree, "stash", "push", "--quiet", "--", C, H, CMAKE)
    git(here.tree, "commit", "--quiet", "-am", "longer")
    git(here.tree, "clean", "--quiet", "-dff")
    (here.tree / ".git/qlutattn/receipt.json").unlink()
    patched(here)
    edit(here.tree / "LICENSE", "\n", "\n\n")
    assert "is edited in 60 places" in refuses(here, "LICENSE, line 2: ")


def test_trees_that_edits_cannot_be_told_in(project):
    generate(project.workspace, project.repository).write()
    with pytest.raises(ExpectedError, match="No patches of qlutattn are applied"):
        export(project.workspace)
    patched(project)
    edit(project.tree / C, "    // third\n", "    // 3\n")
    git(project.tree, "add", C)
    with pytest.raises(ExpectedError, match="has staged changes"):
        export(project.workspace)
    git(project.tree, "commit", "--quiet", "-m", "mine")
    with pytest.raises(ExpectedError, match=r"HEAD of .* has moved") as told:
        export(project.workspace)
    assert told.value.hint
    git(project.tree, *shlex.split(told.value.hint)[3:])
    exports(project)


# --- all or nothing


def test_killed_at_any_step_the_next_export_has_it_all(here, tmp_path):
    edit(here.tree / C, "    // third\n", "    // 3\n")
    edit(here.tree / PLAIN, "int q", "long q")
    wanted = snapshot(here.tree)
    old = snapshot(here.workspace.templates)
    ends = set()
    for count in range(1, 400, 13):
        root = tmp_path / f"kopie {count}"
        shutil.copytree(here.root, root, symlinks=True)
        copy = replace(here, workspace=Workspace(root, root / "vendor" / "llama.cpp"))
        if not killed_at(count, root, lambda it=copy: export(it.workspace)):
            break
        export(copy.workspace)
        ends.add(snapshot(copy.workspace.templates) == old)
        assert snapshot(copy.tree) == wanted
        assert read_status(copy.workspace).state == "applied"
        shutil.rmtree(root)
    assert ends == {False}
    assert count > 10


@pytest.mark.parametrize("seed", range(3))
def test_random_edits_are_carried_exactly_or_refused_wholly(more, seed):
    rng = random.Random(f"20261121 {seed}")
    files = [H, C, CMAKE, "docs/long.md", PLAIN, TABLE, MAIN]
    carried = 0
    for _ in range(6):
        for file in rng.sample(files, rng.randint(1, 2)):
            lines = (more.tree / file).read_text("utf-8").splitlines(keepends=True)
            at = rng.randrange(len(lines) + 1)
            lines[at : at + rng.randint(0, 1)] = rng.choice(
                [[], ["}\n"], ["// {{ a }}\n", "\n"], lines[max(at - 1, 0) : at]]
            )
            (more.tree / file).write_text("".join(lines) or "\n", "utf-8")
        wanted, before = snapshot(more.tree), snapshot(more.workspace.templates)
        try:
            refused = export(more.workspace).refused
        except ExpectedError as failure:
            refused = (failure,)
        assert snapshot(more.tree) == wanted
        if refused:
            assert snapshot(more.workspace.templates) == before
            restore(more)
        else:
            carried += 1
            assert generate(more.workspace, more.repository).drift() == []
            assert read_status(more.workspace).state == "applied"
    assert carried


def restore(project: Project) -> None:
    """The tree as it was applied."""
    git(project.tree, "checkout", "--quiet", ".")
    git(project.tree, "clean", "--quiet", "-dff")
    apply(project.workspace, load_series(project.workspace.patches))


# --- the command


@pytest.fixture
def at_home(here, monkeypatch):
    find = Workspace.find.__func__
    monkeypatch.setattr(Workspace, "find", classmethod(lambda cls, tree=None: find(cls, tree, here.root)))
    return here


def test_the_command_says_what_went_where(at_home, capfd):
    edit(at_home.tree / C, "    // third\n", "    // 3\n")
    before = everything(at_home)
    assert run(["export", "--dry-run"]) == 0
    said = capfd.readouterr()
    assert said.out.splitlines() == [
        f"carried  {C} -> templates/hooks/align.toml [[hook]] 2",
        "changed  templates/hooks/align.toml",
        "changed  patches/align.patch",
        "changed  patches/receipt.json",
    ]
    assert "would be as the tree is" in said.err
    assert everything(at_home) == before
    assert run(["export", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["ok"]
    assert told["carried"] == [{"file": C, "to": "templates/hooks/align.toml", "hook": 2, "form": None}]
    assert run(["export"]) == 0
    assert "There is nothing to carry back." in capfd.readouterr().err


def test_the_command_refuses_with_all_that_is_refused(at_home, capfd):
    edit(at_home.tree / C, "return 2;", "return 22;")
    assert run(["status"]) == 0
    assert "next: qlutattn export" in capfd.readouterr().out
    assert run(["export", "--json"]) == 1
    said = capfd.readouterr()
    (refused,) = json.loads(said.out)["refused"]
    assert (refused["file"], refused["line"]) == (C, 14)
    assert refused["toml"].startswith('[[hook]]\nfile = "ggml/src/ggml.c"\nplace = "replace"\n')
    assert f"{C}, line 14: this is llama.cpp's own text" in said.err
    assert "error: 1 edit of " in said.err


# --- the project's own


@pytest.mark.vendored
def test_our_own_templates(tmp_path):
    """What docs/exporting.md shows."""
    for name in ("templates", "docs", "patches"):
        shutil.copytree(ROOT / name, tmp_path / "projekt ü" / name)
    (tmp_path / "projekt ü" / "vendor").mkdir()
    shutil.copy(ROOT / "vendor" / "llama.cpp.toml", tmp_path / "projekt ü" / "vendor")
    git(tmp_path, "clone", "--quiet", "--shared", str(ROOT / "vendor" / "llama.cpp"), "projekt ü/vendor/llama.cpp")
    workspace = Workspace(tmp_path / "projekt ü", tmp_path / "projekt ü" / "vendor" / "llama.cpp")
    project = patched(Project(workspace, workspace.tree))
    config = "ggml/src/ggml-cpu/qlutattn/qlutattn-config.cpp"
    edit(project.tree / "src/llama-kv-mixed-cells.cpp", '#include "ggml.h"\n', '#include "ggml.h"\n\n// edited\n')
    edit(project.tree / config, "static constexpr int8_t levels_", "static constexpr int8_t the_levels_")
    edit(project.tree / config, ", levels_", ", the_levels_")
    edit(project.tree / "common/arg.cpp", "this many of the newest tokens", "so many of the newest tokens")
    edit(
        project.tree / "ggml/src/ggml-cpu/ops.cpp",
        "        case GGML_TYPE_QLUTATTN_",
        "          case GGML_TYPE_QLUTATTN_",
    )
    edit(project.tree / "src/llama-graph.cpp", "    if (inp_mixed) {\n", "    if (inp_mixed) { // packed\n")
    exported = exports(project)
    assert len(exported.carried) == 5
    assert exported.warnings
    edit(project.tree / "ggml/include/ggml.h", "GGML_TYPE_COUNT   = 54", "GGML_TYPE_COUNT   = 55")
    edit(project.tree / "src/llama.cpp", "\n", "\n// mine\n")
    started = time.monotonic()
    assert [refused.file for refused in export(workspace).refused] == ["ggml/include/ggml.h", "src/llama.cpp"]
    assert time.monotonic() - started < 60
