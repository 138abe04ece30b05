"""Every edit goes to the template that it is of, or is refused with the reason and the place."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from export_helpers import CMAKE, MAIN, PLAIN, TABLE, C, H, everything, exports, hook_file, refuses
from helpers import edit, git

from qlutattn_patch.export.export import Exported, export
from qlutattn_patch.patches.generate import generate
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.tree.worktree import apply
from qlutattn_patch.workflow.status import read_status


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
    assert export(here.workspace) == Exported(False, (), (), ())
    assert everything(here) == before


def test_the_rest_of_the_toml_stays_as_it_is(more):
    edit(more.tree / C, "    int one = 1;\n", "    int one = '''1'''; \\ {{2}}\n")
    before = hook_file(more, "more").read_text()
    exports(more)
    after = hook_file(more, "more").read_text()
    assert re.sub(r'text = """\n    // one.*?"""   #', "", after, flags=re.S) == re.sub(
        r'text = """\n    // one.*?"""   #', "", before, flags=re.S
    )
    assert "    int one = '''1'''; \\\\ {{ '{' }}{2}}\n    return one; // a { too much: {{ '{' }}{\n" in after


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
    refuses(more, f"{C}, line ", "puts its text in 3 places, and these are edited differently")


def test_only_the_variant_that_fits_is_edited(more):
    edit(more.tree / "docs/long.md", "nine\n", "nine and a half\n")
    exported = exports(more)
    assert [(item.hook, item.form) for item in exported.carried] == [(4, 1)]
    assert "has variants for other upstreams, which are unchanged" in exported.warnings[0]
    assert 'text = "never\\n"' in hook_file(more, "more").read_text()
    assert 'text = "nine and a half\\n"' in hook_file(more, "more").read_text()


def test_a_text_that_variants_share_is_edited_for_all_with_a_warning(more):
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


# --- rendered text

TRAITS = f"templates/overlay/{TABLE}.j2"
TYPES = "the text of templates/hooks/types.toml [[hook]] 1"


@pytest.mark.parametrize(
    ("file", "old", "new", "place"),
    [
        (TABLE, "k2_128x128", "k2_64x64", f"{TRAITS}, line 2"),  # what an expression makes
        (TABLE, "v4_128x128 ", "v4_128x128  ", f"{TRAITS}, line 2"),  # the template's own text, in one turn of a loop
        (H, "K1_128x128 = 48", "K1_128x128 = 58", f"{TYPES}, line 2"),
        (H, "COUNT   = 56", "COUNT   = 57", f"{TYPES}, line 4"),
        (H, "        GGML_TYPE_COUNT", "        // the last\n        GGML_TYPE_COUNT", f"{TYPES}, line 4"),
    ],
)
def test_an_edit_of_rendered_text_is_refused_with_the_line_of_its_template(here, file, old, new, place):
    edit(here.tree / file, old, new)
    edit(here.tree / C, "    // third\n", "    // 3\n")  # this one waits
    text = (here.tree / file).read_text()
    line = text.count("\n", 0, text.index(new)) + 1
    refuses(here, f"{file}, line {line}: this is rendered from {place}, and edits of rendered text cannot be exported")


def test_edits_of_rendered_text_are_listed_once_for_each_line_of_the_template(here):
    edit(here.tree / TABLE, " ", " = ")
    edit(here.tree / H, "_128x128 =", "_128x128  =")
    edit(here.tree / H, "COUNT   =", "COUNT =")
    said = refuses(here, f"{TRAITS}, line 2", f"{TYPES}, line 2", f"{TYPES}, line 4")
    assert said.count("next: make the edit there") == 3


def test_an_edit_of_rendered_text_counts_as_carried_once_it_is_made_in_the_template(here):
    edit(here.tree / TABLE, " ", " = ")
    refuses(here, f"{TRAITS}, line 2")
    edit(here.root / TRAITS, "}} {{", "}} = {{")
    exports(here)


def test_what_looks_like_a_tag_is_escaped_and_can_be_edited_again(here):
    edit(here.tree / C, "    // third\n", "    int a[1][1] = {{0}}; // {% {#\n")
    exports(here)
    assert "= {{ '{' }}{0}}; // {{ '{' }}% {{ '{' }}#" in hook_file(here, "align").read_text()
    edit(here.tree / C, "{{0}}", "{{1}}")
    exports(here)
    assert "= {{ '{' }}{1}}; // {{ '{' }}% {{ '{' }}#" in hook_file(here, "align").read_text()


# --- what no template can have, and what changed there since


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
        f"{PLAIN}: it has CRLF line endings",
        f"{TABLE}: this is not UTF-8 text",
        f"{C}: this is not UTF-8 text",
        f"{MAIN}: its last line has no line ending",
        "tools/prüf stand/run.sh: its mode does not match its first line",
        f"chmod +x '{here.tree / 'scripts/run me.sh'}'",
        "LICENSE: this file of llama.cpp is deleted",
        f"{H}: this is now a link",
    )
    assert said.count("next: ") == 8


def test_a_listed_file_that_is_no_text_is_refused(here):
    (here.tree / "a.bin").write_bytes(b"\0")
    edit(hook_file(here, "align"), "overlay = [", 'overlay = ["a.bin", ')
    refuses(here, "a.bin: this is not UTF-8 text")


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
