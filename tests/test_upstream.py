"""What is taken for granted about a llama.cpp tree is checked."""

from __future__ import annotations

import pytest
from helpers import GGML_C, GGML_H, ROOT

from qlutattn_patch.errors import ExpectedError
from qlutattn_patch.formats import load_formats
from qlutattn_patch.upstream import check_is_llama_cpp, check_types_are_free, type_ids


def check(ggml_h: str = GGML_H, ggml_c: str = GGML_C) -> None:
    check_types_are_free(load_formats(ROOT / "templates" / "formats.toml"), ggml_h, ggml_c)


def test_reads_the_enum():
    ids = {"GGML_TYPE_F32": 0, "GGML_TYPE_F16": 1, "GGML_TYPE_Q2_0": 42, "GGML_TYPE_COUNT": 43}
    assert type_ids(GGML_H) == ids


def test_constants_without_a_value_count_on():
    text = "enum ggml_type { GGML_TYPE_A = 3, GGML_TYPE_B, /* GGML_TYPE_C, */ GGML_TYPE_COUNT }"
    assert type_ids(text) == {"GGML_TYPE_A": 3, "GGML_TYPE_B": 4, "GGML_TYPE_COUNT": 5}


def test_a_free_upstream_is_fine():
    check()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "GGML_TYPE_Q2_0    = 42",
            "GGML_TYPE_Q2_0    = 48",
            "already has a type with the id 48 of 'qlutattn_k1_128x128'",
        ),
        ("GGML_TYPE_Q2_0 ", "GGML_TYPE_QLUTATTN_V4_128x128 ", "already has the type GGML_TYPE_QLUTATTN_V4_128x128"),
        ("GGML_TYPE_COUNT   = 43", "GGML_TYPE_COUNT   = 49", "GGML_TYPE_COUNT of this llama.cpp is 49"),
        ("enum ggml_type", "enum ggml_kind", "has no 'enum ggml_type"),
        ("GGML_TYPE_COUNT", "GGML_TYPE_LAST", "has no GGML_TYPE_COUNT"),
    ],
)
def test_a_collision_is_told_in_one_sentence(old, new, said):
    assert old in GGML_H
    with pytest.raises(ExpectedError, match=said) as told:
        check(ggml_h=GGML_H.replace(old, new))
    assert "\n" not in told.value.cause
    assert told.value.hint


def test_a_name_that_is_taken_is_told():
    with pytest.raises(ExpectedError, match="a type named 'qlutattn_v1_128x128'"):
        check(ggml_c=GGML_C.replace('"f16"', '"qlutattn_v1_128x128"'))


def test_something_else_is_no_llama_cpp():
    with pytest.raises(ExpectedError, match=r"it has no ggml/include/ggml\.h"):
        check_is_llama_cpp({"CMakeLists.txt"}, "that")
