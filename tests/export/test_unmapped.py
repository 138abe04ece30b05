"""An edit that no template has a place for is refused with the hook to add, as TOML."""

from __future__ import annotations

import re

import pytest
from export_helpers import CMAKE, MAIN, C, H, check_is, exports, hook_file, patched, refuses
from helpers import edit, git, snapshot

from qlutattn_patch.export.export import export


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
    said = refuses(here, f"{file}, line ", "this is llama.cpp's own text, not a hook's")
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
    said = refuses(here, "the nearest is templates/hooks/align.toml [[hook]] 2, at line 18 of the patched file")
    assert f"{C}, line 10: " in said
    hooks = new_hooks(said)
    assert [patch for patch, _ in hooks] == ["types", "align"]
    for patch, toml in hooks:
        with hook_file(here, patch).open("a", encoding="utf-8") as out:
            out.write(f"\n{toml}")
    refuses(here, "ggml/src/new.c: no patch adds this file", "the list `overlay` of templates/hooks/types.toml")
    edit(hook_file(here, "types"), "overlay = [", 'overlay = [\n    "ggml/src/new.c",\n   ')
    exported = exports(here)
    assert "templates/overlay/ggml/src/new.c" in exported.changed
    assert (here.workspace.templates / "overlay/ggml/src/new.c").read_text() == "int a;\n"


def test_a_deleted_overlay_file_is_refused(here):
    (here.tree / MAIN).unlink()
    refuses(here, "this file is deleted, and templates/hooks/align.toml adds it")


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
