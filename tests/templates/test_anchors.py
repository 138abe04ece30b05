"""Hooks are placed at their anchors, and everything that does not fit is reported at once."""

from __future__ import annotations

import pytest
from helpers import ROOT

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.templates.anchors import Placer, nearest_lines
from qlutattn_patch.templates.formats import load_formats
from qlutattn_patch.templates.render import Renderer
from qlutattn_patch.templates.spec import Hook

TEXT = "int first(void);\nint second(void);\nint second_again(void);\n"


@pytest.fixture(scope="module")
def renderer():
    return Renderer(load_formats(ROOT / "templates" / "formats.toml"))


def hook(
    anchor: str,
    text: str = "new;\n",
    place: str = "after",
    count: int = 1,
    file: str = "a.h",
    where: str = "h",
    variants: tuple[Hook, ...] = (),
):
    return Hook(where, file, anchor, place, text, count, variants=variants)


@pytest.mark.parametrize(
    ("place", "result"),
    [
        ("after", "int first(void);\nnew;\nint second(void);\nint second_again(void);\n"),
        ("before", "new;\nint first(void);\nint second(void);\nint second_again(void);\n"),
        ("replace", "new;\nint second(void);\nint second_again(void);\n"),
    ],
)
def test_places_a_hook(renderer, place, result):
    placer = Placer(renderer)
    assert placer.place(hook("int first(void);\n", place=place), {"a.h": TEXT}) == ("a.h", result)
    placer.check("upstream")


def test_an_anchor_may_be_wanted_several_times(renderer):
    placed = Placer(renderer).place(hook("int second", "X", "before", count=2), {"a.h": TEXT})
    assert placed[1] == "int first(void);\nXint second(void);\nXint second_again(void);\n"


def test_an_anchor_of_several_lines(renderer):
    placed = Placer(renderer).place(hook("first(void);\nint sec", "X", "replace"), {"a.h": TEXT})
    assert placed[1] == "int Xond(void);\nint second_again(void);\n"


def test_the_text_is_a_template_and_the_anchor_is_not(renderer):
    placed = Placer(renderer).place(hook("{{ a }}", "{{ tile.pack_size }}", "replace"), {"a.h": "{{ a }}\n"})
    assert placed == ("a.h", "128\n")


def told(placer: Placer) -> list[str]:
    with pytest.raises(ExpectedError) as failure:
        placer.check("upstream X")
    return failure.value.cause.splitlines()


def test_every_failure_is_told_at_once_with_the_nearest_lines(renderer):
    placer = Placer(renderer)
    texts = {"a.h": TEXT}
    assert placer.place(hook("int frist(void);\n", where="one"), texts) is None
    assert placer.place(hook("int second", where="two"), texts) is None
    assert placer.place(hook("x", file="b.h", where="three"), texts) is None
    assert placer.place(hook("int first", where="four"), texts) is not None
    lines = told(placer)
    assert lines[0] == "3 hooks do not fit upstream X:"
    assert lines[1] == "  one: a.h: the anchor 'int frist(void);' must occur once, but occurs 0 times"
    assert lines[2] == "      near it, line 1: int first(void);"
    assert "  two: a.h: the anchor 'int second' must occur once, but occurs 2 times" in lines
    assert "  three: b.h: there is no such file" in lines


def test_what_follows_from_an_earlier_failure_is_told_apart(renderer):
    placer = Placer(renderer)
    placer.place(hook("gone", "brought;\n", where="one"), {"a.h": TEXT})
    placer.place(hook("brought;", where="two"), {"a.h": TEXT})
    placer.place(hook("x", file="b.h", where="three"), {"a.h": TEXT})
    placer.place(hook("y", file="b.h", where="four"), {"a.h": TEXT})
    lines = told(placer)
    follow = lines.index("  These follow from the ones above:")
    assert [line.split(":")[0].strip() for line in lines[1:follow]] == ["one", "three"]
    assert [line.split(":")[0].strip() for line in lines[follow + 1 :]] == ["two", "four"]
    assert lines[follow + 1].endswith("(follows from one)")


# --- variants for other upstreams

VARIANTS = hook("int third", "3;\n", where="new", variants=(hook("int first(void);\n", "1;\n", where="old"),))


def test_the_variant_that_fits_is_taken(renderer):
    placer = Placer(renderer)
    assert placer.place(VARIANTS, {"a.h": TEXT}) == ("a.h", TEXT.replace("first(void);\n", "first(void);\n1;\n"))
    assert placer.place(VARIANTS, {"a.h": "int third;\n"}) == ("a.h", "int third3;\n;\n")
    assert [placed.variant.where for placed in placer.placed] == ["old", "new"]
    placer.check("upstream")


def test_a_variant_may_be_for_another_file(renderer):
    moved = hook("int first", where="new", file="b.h", variants=(hook("int first", "X", "before", where="old"),))
    assert Placer(renderer).place(moved, {"a.h": "int first;\n"}) == ("a.h", "Xint first;\n")


def test_when_no_variant_fits_each_is_reported(renderer):
    placer = Placer(renderer)
    assert placer.place(VARIANTS, {"a.h": "int fourth(void);\n"}) is None
    lines = told(placer)
    assert lines[0] == "1 hook does not fit upstream X:"
    assert lines[1].startswith("  new: a.h: the anchor 'int third' must occur once, but occurs 0 times")
    assert "  old: a.h: the anchor 'int first(void);' must occur once, but occurs 0 times" in lines


def test_when_two_variants_fit_none_is_taken(renderer):
    placer = Placer(renderer)
    assert placer.place(VARIANTS, {"a.h": TEXT + "int third;\n"}) is None
    assert told(placer)[1] == "  new: a.h: more than one of its variants fits: 'int third' and 'int first(void);'"


def test_what_follows_from_a_variant_that_fails_is_told_apart(renderer):
    placer = Placer(renderer)
    placer.place(VARIANTS, {"a.h": "\n"})
    placer.place(hook("1;", where="two"), {"a.h": "\n"})
    assert told(placer)[-1].endswith("(follows from old)")


# --- the numbers of an upstream, and near misses


def test_an_anchor_may_name_a_number_of_the_upstream():
    renderer = Renderer(load_formats(ROOT / "templates" / "formats.toml"), {"op_count": 101})
    count = hook("N == {{ upstream.op_count }};", "N == {{ upstream.op_count + 1 }};", "replace")
    assert Placer(renderer).place(count, {"a.h": "N == 101;\n"}) == ("a.h", "N == 102;\n")
    with pytest.raises(ExpectedError, match=r"h: this llama\.cpp has no 'type_count'"):
        Placer(renderer).place(hook("{{ upstream.type_count }}"), {"a.h": "x"})


@pytest.mark.parametrize(
    ("anchor", "near"),
    [
        ("int first(void);\nint third(void);\n", [(2, "int second(void);")]),
        ("int second(void);\n\nint third", [(3, "int second_again(void);")]),
        ("    int first(void);\nint second(void);\nint other", [(3, "int second_again(void);")]),
    ],
)
def test_where_an_anchor_begins_the_first_differing_line_is_shown(anchor, near):
    assert list(nearest_lines(TEXT, anchor)) == near
