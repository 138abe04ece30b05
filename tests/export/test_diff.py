"""Edits turn one text into the other, and are found whose they are."""

from __future__ import annotations

import pytest
from effort import examples
from hypothesis import given
from hypothesis import strategies as st

from qlutattn_patch.export.diff import Edit, Part, apply_edits, edits, owned, slides

LINES = st.lists(st.sampled_from(["    int a = 1;\n", "}\n", "\n", "    int b;\n", "x", "if (a) {\n"]), max_size=9).map(
    "".join
)


@pytest.mark.nightly
@given(LINES, LINES)
@examples(300)
def test_edits_turn_the_old_text_into_the_new(old, new):
    found = edits(old, new)
    assert apply_edits(old, found) == new
    assert (found == []) == (old == new)


@pytest.mark.nightly
@given(LINES, LINES)
@examples(300)
def test_a_slide_gives_the_same_result(old, new):
    found = edits(old, new)
    if len(found) == 1:
        assert {apply_edits(old, [slid]) for slid in slides(old, found[0])} == {new}


def test_only_what_differs_of_a_word_is_edited():
    assert edits("a levels_2bit b\nc\n", "a level_2bit b\nc\n") == [Edit(7, 8, "")]
    assert edits("one\ntwo\n", "one\n1.5\ntwo\n") == [Edit(4, 4, "1.5\n")]


def test_edits_of_the_same_place_are_no_edit():
    assert apply_edits("abc", [Edit(0, 2, "x"), Edit(1, 3, "y")]) is None
    assert apply_edits("abc", [Edit(1, 1, "x"), Edit(1, 1, "y")]) is None
    assert apply_edits("abc", [Edit(1, 1, "x"), Edit(1, 1, "x")]) == "axbc"


PARTS = [Part("a\n"), Part("}\n", "hook", 0), Part("}\nc\n"), Part("b\n", "other", 10)]


@pytest.mark.parametrize(
    ("edit", "owner"),
    [
        (Edit(2, 2, "x\n"), ("hook", Edit(0, 0, "x\n"))),  # before its first line
        (Edit(4, 4, "x\n"), ("hook", Edit(2, 2, "x\n"))),  # after its last
        (Edit(6, 6, "}\n"), ("hook", Edit(2, 2, "}\n"))),  # after its like, which is llama.cpp's
        (Edit(4, 6, ""), ("hook", Edit(0, 2, ""))),  # one of two that are alike
        (Edit(8, 9, "d"), ("other", Edit(10, 11, "d"))),
        (Edit(0, 1, "c"), None),
        (Edit(1, 3, "c"), None),  # across a border
        (Edit(0, 0, "c"), None),
    ],
)
def test_whose_an_edit_is(edit, owner):
    assert owned(PARTS, edit) == owner


def test_an_insertion_between_two_is_the_first_ones():
    assert owned([Part("a", 1), Part("b", 2)], Edit(1, 1, "x")) == (1, Edit(1, 1, "x"))
