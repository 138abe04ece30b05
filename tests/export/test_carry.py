"""A template is edited so that it renders to what is wanted, or it is said what cannot be."""

from __future__ import annotations

import random

import pytest
from helpers import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from qlutattn_patch.export.carry import Made, carried, escaped
from qlutattn_patch.templates.formats import load_formats
from qlutattn_patch.templates.render import Renderer

RENDERER = Renderer(load_formats(ROOT / "templates" / "formats.toml"), {"op_count": 101})
LOOP = "{% for t in types %}\n    case {{ t.enum }}:\n{% endfor %}\n"
COUNT = "static_assert(COUNT == {{ upstream.op_count + 1 }}); // {{ tile.pack_size }}\n"
OWN = sorted((ROOT / "templates" / "overlay").rglob("*.j2"))


def carry(template, old, new, count=-1):
    rendered = RENDERER.text(template, "it")
    assert old in rendered
    return carried(RENDERER, template, rendered.replace(old, new, count), "it")


@pytest.mark.parametrize(
    ("template", "old", "new", "result"),
    [
        ("int a;\n", "a", "b", "int b;\n"),
        ("int a;\n", "a;\n", "a[] = {{1}, {2}};\n", "int a[] = {{ '{' }}{1}, {2}};\n"),
        ("a {\n", "a {\n", "a {{% b {#\n", "a {{ '{' }}{{ '{' }}% b {{ '{' }}#\n"),
        ("{{ '{{' }} a\n", "a", "b", "{{ '{{' }} b\n"),
        (LOOP, "    case", "        case", LOOP.replace("    case", "        case")),
        (LOOP, ":\n", ":\n        break;\n", LOOP.replace(":\n", ":\n        break;\n")),
        (COUNT, "COUNT", "THE_COUNT", COUNT.replace("COUNT", "THE_COUNT")),
        (COUNT, "; // ", "; // of ", COUNT.replace("; // ", "; // of ")),
        (COUNT, "128\n", "128 lanes\n", COUNT.replace("}}\n", "}} lanes\n")),
        ("{% if tile %}\na\n{% endif %}\nb\n", "a\n", "", "{% if tile %}\n{% endif %}\nb\n"),
    ],
)
def test_what_is_the_templates_own_is_edited(template, old, new, result):
    assert carry(template, old, new) == result


def test_insertions_around_a_loop_and_in_it():
    text = RENDERER.text(LOOP, "it")
    assert carried(RENDERER, LOOP, f"begin\n{text}", "it") == f"begin\n{LOOP}"
    assert carried(RENDERER, LOOP, f"{text}end\n", "it") == f"{LOOP}end\n"
    two = LOOP + LOOP
    assert carried(RENDERER, two, f"{text}between\n{text}", "it") == f"{LOOP}between\n{LOOP}"


@pytest.mark.parametrize(
    ("template", "old", "new", "count", "made"),
    [
        (COUNT, "128", "256", -1, Made(33, "128", 1, True)),
        (COUNT, "102", "1102", -1, Made(23, "102", 1, True)),  # no 1 before what is counted
        (COUNT, "102", "1020", -1, Made(26, "102", 1, True)),
        (LOOP, "K2", "X2", -1, Made(68, "GGML_TYPE_QLUTATTN_K2_128x128", 2, True)),
        (LOOP, "    case", "  case", 1, Made(0, "    case GGML_TYPE_QLUTATTN_K1_128x128:", 2, False)),
        (LOOP, ":\n", ": // first\n", 1, Made(38, "    case GGML_TYPE_QLUTATTN_K1_128x128:", 2, False)),
    ],
)
def test_what_is_made_is_not(template, old, new, count, made):
    found = carry(template, old, new, count)
    assert isinstance(found, Made)
    assert (found.text, found.template_line, found.expression) == (made.text, made.template_line, made.expression)


@given(st.text("{%#} a\n", max_size=12))
def test_what_is_escaped_comes_out_as_it_is(text):
    assert RENDERER.text(escaped(text), "it") == text


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_every_line_of_our_own_templates_that_is_rendered_once_can_be_edited(path):
    template = path.read_text("utf-8")
    rendered = RENDERER.text(template, "it")
    own = [line for line in template.split("\n") if line.strip() and "{" not in line and rendered.count(line) == 1]
    assert own
    for line in own:
        new = carried(RENDERER, template, rendered.replace(line, f"// before\n{line} // edited"), "it")
        assert new == template.replace(line, f"// before\n{line} // edited"), line


@given(st.integers(0, 2**32), st.sampled_from(OWN))
@settings(max_examples=50, deadline=None)
def test_random_edits_are_carried_exactly_or_not_at_all(seed, path):
    rng = random.Random(seed)
    template = path.read_text("utf-8")
    lines = RENDERER.text(template, "it").splitlines(keepends=True)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        lines[at : at + rng.randint(0, 2)] = rng.choice([[], ["}\n"], ["\n", "x\n"], [lines[at].upper()], [lines[at]]])
    found = carried(RENDERER, template, "".join(lines), "it")
    if not isinstance(found, Made):
        assert RENDERER.text(found, "it") == "".join(lines)
