"""The patch specifications fit together, or it is said what does not."""

from __future__ import annotations

import pytest
from helpers import edit

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.templates.spec import load_templates


@pytest.fixture
def templates(project):
    return project.workspace.templates


def test_reads_the_specifications(templates):
    found = load_templates(templates)
    assert [patch.name for patch in found.patches] == ["types", "align"]
    types = found.patches[0]
    assert types.why == "The tables need them."
    assert types.hooks[0].file == "ggml/include/ggml.h"
    assert types.hooks[0].anchor == "        GGML_TYPE_COUNT   = 43,\n"
    assert types.hooks[1].count == 1
    assert found.overlay["ggml/src/qlutattn/traits.inc"].name == "traits.inc.j2"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('until = "Types can be registered."', "", "'until' is missing"),
        ('until = "Types can be registered."', 'until = " "', "'until' is empty"),
        ('subject = "ggml: add the types"', 'subject = "a\\nb"', "'subject' must be one line"),
        ('place = "after"', 'place = "over"', "'place' must be 'after' or 'before' or 'replace', not 'over'"),
        ('place = "after"', 'place = "after"\ncount = 0', "'count' must be an integer >= 1, not 0"),
        ('place = "after"', 'place = "after"\nregex = true', "unknown key 'regex'"),
        ('file = "ggml/src/ggml.c"', 'file = "../ggml.c"', "not a plain relative path"),
        ('file = "ggml/src/ggml.c"', 'file = "a\\u0000b"', "not a plain relative path"),
        ('file = "ggml/src/ggml.c"', 'file = "a\\nb"', "not a plain relative path"),
        ('file = "ggml/src/ggml.c"', 'file = "a/.Git/config"', "leads into a .git folder"),
        ('place = "after"', 'place = "after"\ncount = 99999999999999999999', "a number of more than 64 bits"),
        ('anchor = "#include', 'anchor = "\\u0000#include', "'anchor' must be a text without NUL and carriage returns"),
        ('text = "#include', 'text = "\\r#include', "'text' must be a text without NUL and carriage returns"),
        ('until = "Types can be registered."', 'until = "\\u001b[31m"', "cannot be printed"),
        ('subject = "ggml: add the types"', 'subject = "a\\u202eb"', "cannot be printed"),
        ('anchor = "#include \\"ggml.h\\"\\n"', 'anchor = "\\n"', "'anchor' must be a text without .*, and not blank"),
    ],
)
def test_a_wrong_specification_is_told(templates, old, new, said):
    edit(templates / "hooks" / "types.toml", old, new)
    with pytest.raises(ExpectedError, match=said) as told:
        load_templates(templates)
    assert "types.toml" in told.value.cause


def test_everything_that_does_not_fit_together_is_told_at_once(templates):
    (templates / "overlay" / "stray.h").write_text("stray\n")
    (templates / "hooks" / "lost.toml").write_text("")
    edit(templates / "hooks" / "align.toml", '["tools/', '["nowhere.c", "ggml/src/qlutattn/qlutattn.c", "tools/')
    with pytest.raises(ExpectedError) as told:
        load_templates(templates)
    assert told.value.cause.splitlines() == [
        "The templates are inconsistent:",
        "  templates/hooks/lost.toml is not named in templates/hooks/series",
        "  nowhere.c is added by 'align', but missing from templates/overlay",
        "  ggml/src/qlutattn/qlutattn.c is added by 'types' and again by 'align'",
        "  templates/overlay/stray.h is not added by any patch",
    ]


def test_a_name_in_the_series_without_a_specification_is_told(templates):
    edit(templates / "hooks" / "series", "align\n", "align\nnothing\n")
    with pytest.raises(ExpectedError, match=r"There is no file .*nothing\.toml"):
        load_templates(templates)


@pytest.mark.parametrize(("line", "said"), [("types", "listed twice"), ("../x", "not a plain file name")])
def test_a_wrong_series_is_told(templates, line, said):
    edit(templates / "hooks" / "series", "align\n", f"align\n{line}\n")
    with pytest.raises(ExpectedError, match=said):
        load_templates(templates)


def test_a_source_and_its_template_at_once_are_told(templates):
    (templates / "overlay/ggml/src/qlutattn/traits.inc").write_text("x\n")
    with pytest.raises(ExpectedError, match=r"traits\.inc is in templates/overlay both"):
        load_templates(templates)


OTHER = """
[[hook.or]]
upstream = "0.1 and older"
anchor = "#include <ggml.h>\\n"
"""
OPTIONAL = """
[optional]
since = "0.3.33"
because = "It has no
place."
""".replace('"It has no\nplace."', '"""It has no\n  place."""')


def test_a_hook_may_have_forms_for_other_upstreams(templates):
    path = templates / "hooks" / "types.toml"
    path.write_text(path.read_text() + OTHER)
    hook = load_templates(templates).patches[0].hooks[1]
    (other,) = hook.variants
    assert (hook.patch, other.patch) == ("types", "types")
    assert other.anchor == "#include <ggml.h>\n"
    assert (other.file, other.place, other.text, other.count) == (hook.file, hook.place, hook.text, hook.count)
    assert other.where.endswith("[[hook]] 2 [[or]] 1")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('upstream = "0.1 and older"', "", "'upstream' is missing"),
        ("anchor = ", "text = ", "'anchor' is missing"),
        ("anchor = ", "count = 0\nanchor = ", "'count' must be an integer >= 1, not 0"),
        ("anchor = ", "since = 3\nanchor = ", "unknown key 'since'"),
        ("anchor = ", 'file = "/x"\nanchor = ', "not a plain relative path"),
    ],
)
def test_a_wrong_form_is_told(templates, old, new, said):
    path = templates / "hooks" / "types.toml"
    path.write_text(path.read_text() + OTHER.replace(old, new))
    with pytest.raises(ExpectedError, match=said) as told:
        load_templates(templates)
    assert "types.toml" in told.value.cause


def test_the_last_patches_may_be_optional(templates):
    path = templates / "hooks" / "align.toml"
    path.write_text(path.read_text() + OPTIONAL)
    found = load_templates(templates)
    assert found.patches[0].optional is None
    assert found.patches[1].optional is not None
    assert (found.patches[1].optional.since, found.patches[1].optional.because) == ("0.3.33", "It has no place.")
    rest = found.until("align")
    assert [patch.name for patch in rest.patches] == ["types"]
    assert sorted(rest.overlay) == ["ggml/src/qlutattn/qlutattn.c", "ggml/src/qlutattn/traits.inc"]


def test_a_required_patch_after_an_optional_one_is_told(templates):
    path = templates / "hooks" / "types.toml"
    path.write_text(path.read_text() + OPTIONAL)
    with pytest.raises(ExpectedError, match="'align' follows the optional patch 'types' and is not optional itself"):
        load_templates(templates)
