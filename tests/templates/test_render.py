"""Texts are rendered strictly, and a rendered character is traced to the line of its template."""

from __future__ import annotations

import pytest
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.templates.formats import load_formats
from qlutattn_patch.templates.render import Renderer, escaped

RENDERER = Renderer(load_formats(ROOT / "templates" / "formats.toml"))
OWN = sorted((ROOT / "templates" / "overlay").rglob("*.j2"))


def test_renders_types_tile_and_codebooks():
    template = (
        "{% for t in types %}\n{{ t.id }}\n{% endfor %}\n{{ tile.pack_size }} {{ books[0].levels | join(' ') }}\n"
    )
    assert RENDERER.text(template, "here") == "48\n49\n50\n51\n52\n53\n54\n55\n128 -64 64\n"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ nothing }}", "here: the template fails: 'nothing' is undefined"),
        ("{{ types[0].colour }}", "has no attribute 'colour'"),
        ("a\n{% for %}", "here, line 2"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ books[3].levels }}", "here: the template fails"),
        ("{{ types.append(1) }}", "has no attribute 'append'"),
        ("{% include '/etc/passwd' %}", "here: the template fails: no loader"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested too deeply"),
        ("{{ " + "(" * 5000, "nested too deeply|unexpected"),
        ("{{ " + "-" * 5000 + "1 }}", "nested too deeply"),
        ("{{ " + "9" * 5000 + " }}", "here: the template fails"),
    ],
)
def test_a_wrong_template_is_refused(template, said):
    with pytest.raises(ExpectedError, match=said) as failure:
        RENDERER.text(template, "here")
    assert failure.value.hint


@given(st.text("{%#} a\n", max_size=12))
def test_what_is_escaped_comes_out_as_it_is(text):
    assert RENDERER.text(escaped(text), "it") == text


TRACED = """\
a
{% for x in [1, 2] %}
  b
{# c
 d #}
{{ x }} {{ 'q
r' }}
{% if x %}
  e
{% endif %}
{% endfor %}
f
"""


def test_a_rendered_character_has_the_line_of_its_template():
    text = RENDERER.text(TRACED, "it")
    assert text == "a\n  b\n1 q\nr\n  e\n  b\n2 q\nr\n  e\nf\n"
    found = [(char, RENDERER.template_line(TRACED, at)) for at, char in enumerate(text) if char.strip()]
    first, second = ([("b", 3), (turn, 6), ("q", 6), ("r", 6), ("e", 9)] for turn in "12")
    assert found == [("a", 1), *first, *second, ("f", 12)]


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_plain_lines_of_our_own_templates_are_traced_to_themselves(path):
    template = path.read_text("utf-8")
    text = RENDERER.text(template, "it")
    plain = [(number, line) for number, line in enumerate(template.split("\n"), 1) if line.strip() and "{" not in line]
    once = [(number, line) for number, line in plain if text.count(line) == 1]
    assert once
    for number, line in once:
        assert RENDERER.template_line(template, text.index(line)) == number, line
