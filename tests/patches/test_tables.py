"""What is taken for granted about a llama.cpp tree is checked, and its tables against each other."""

from __future__ import annotations

import pytest
from helpers import GGML_C, GGML_H, ROOT

from qlutattn_patch.patches.tables import collisions, constants, facts, mismatches
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.templates.formats import load_formats
from qlutattn_patch.upstream.layout import check_is_llama_cpp

OPS_H = GGML_H + "enum ggml_op {\n    GGML_OP_NONE = 0,\n\n    GGML_OP_ADD, // a + b\n    GGML_OP_COUNT,\n};\n"
OPS_C = """\
static const struct ggml_type_traits type_traits[GGML_TYPE_COUNT] = {
    [GGML_TYPE_F32] = {
        .type_name = "f32",
    },
    [GGML_TYPE_F16] = {
        .type_name = "f16",
    },
    [4] = { // GGML_TYPE_Q4_2
        .type_name = "DEPRECATED",
    },
    [GGML_TYPE_Q2_0] = {
        .type_name = "q2_0",
    },
};

static const char * GGML_OP_NAME[GGML_OP_COUNT] = {
    "NONE",

    "ADD",
};

static_assert(GGML_OP_COUNT == 2, "GGML_OP_COUNT != 2");

static const char * GGML_OP_SYMBOL[GGML_OP_COUNT] = {
    "none",

    "x+y",
};

static_assert(GGML_OP_COUNT == 2, "GGML_OP_COUNT != 2");
"""
RPC = (
    "".join(f"#define RPC_PROTO_{part}_VERSION    {n}\n" for part, n in (("MAJOR", 5), ("MINOR", 0), ("PATCH", 3)))
    + '\nstatic_assert(GGML_OP_COUNT == 2, "update it");\n'
)
CONSTANTS = """\
class GGMLQuantizationType(IntEnum):
    F32     = 0
    F16     = 1
    Q2_0    = 42


GGML_QUANT_SIZES: dict[GGMLQuantizationType, tuple[int, int]] = {
    GGMLQuantizationType.F32:     (1, 4),
    GGMLQuantizationType.F16:     (1, 2),
    GGMLQuantizationType.Q2_0:    (64, 2 + 16),
}


class LlamaFileType(IntEnum):
    ALL_F32    = 0
    # MOSTLY_X = 6   # removed
    MOSTLY_F16 = 1   # except 1d tensors
    GUESSED    = 1024


class GGUFEndian(IntEnum):
"""
LLAMA = """\
    enum llama_ftype {
        LLAMA_FTYPE_ALL_F32    = 0,
        LLAMA_FTYPE_MOSTLY_F16 = 1,  // except 1d tensors
        // LLAMA_FTYPE_MOSTLY_X = 6,
        LLAMA_FTYPE_GUESSED = 1024, // not specified
    };
"""
TEXTS = {
    "ggml/include/ggml.h": OPS_H,
    "ggml/src/ggml.c": OPS_C,
    "ggml/include/ggml-rpc.h": RPC,
    "gguf-py/gguf/constants.py": CONSTANTS,
    "include/llama.h": LLAMA,
}


def edited(file: str, old: str, new: str) -> dict[str, str]:
    """The tables with one edit; `file` is the end of a path."""
    path = next(path for path in TEXTS if path.endswith(file))
    assert old in TEXTS[path]
    return {**TEXTS, path: TEXTS[path].replace(old, new, 1)}


def taken(texts: dict[str, str]) -> list[str]:
    return collisions(load_formats(ROOT / "templates" / "formats.toml"), texts)


def test_reads_the_enum():
    ids = {"GGML_TYPE_F32": 0, "GGML_TYPE_F16": 1, "GGML_TYPE_Q2_0": 42, "GGML_TYPE_COUNT": 43}
    assert constants(GGML_H, "ggml_type") == ids


def test_constants_without_a_value_count_on():
    text = "enum ggml_type { GGML_TYPE_A = 3, GGML_TYPE_B, /* GGML_TYPE_C, */ GGML_TYPE_COUNT }"
    assert constants(text, "ggml_type") == {"GGML_TYPE_A": 3, "GGML_TYPE_B": 4, "GGML_TYPE_COUNT": 5}


def test_the_numbers_that_hooks_may_name():
    assert facts(TEXTS) == {"type_count": 43, "op_count": 2, "rpc_patch": 3}
    assert facts({"ggml/include/ggml.h": GGML_H, "ggml/src/ggml.c": GGML_C}) == {"type_count": 43}


def test_a_free_upstream_is_fine():
    assert taken(TEXTS) == []
    assert taken({"ggml/include/ggml.h": GGML_H, "ggml/src/ggml.c": GGML_C}) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("ggml.h", "GGML_TYPE_Q2_0    = 42", "GGML_TYPE_Q2_0    = 48", "id 48 of 'qlutattn_k1_128x128': GGML_TYPE_Q2"),
        ("ggml.h", "GGML_TYPE_Q2_0 ", "GGML_TYPE_QLUTATTN_V4_128x128 ", "has the type GGML_TYPE_QLUTATTN_V4_128x128"),
        ("ggml.h", "GGML_TYPE_COUNT   = 43", "GGML_TYPE_COUNT   = 49", "GGML_TYPE_COUNT is 49, above"),
        ("ggml.h", "enum ggml_type", "enum ggml_kind", "has no 'enum ggml_type"),
        ("ggml.h", "GGML_TYPE_COUNT", "GGML_TYPE_LAST", "with a GGML_TYPE_COUNT"),
        ("ggml.c", '"f16"', '"qlutattn_v1_128x128"', "a type named 'qlutattn_v1_128x128'"),
        ("constants.py", "Q2_0    = 42", "Q2_0    = 49", "id 49 of 'qlutattn_k2_128x128': GGMLQuantizationType.Q2_0"),
        ("ggml.h", "GGML_OP_ADD,", "GGML_OP_FLASH_ATTN_EXT_MIXED,", "has the op GGML_OP_FLASH_ATTN_EXT_MIXED"),
        ("constants.py", "Q2_0    = 42", "QLUTATTN_K1_128X128 = 42", "GGMLQuantizationType.QLUTATTN_K1_128X128"),
    ],
)
def test_a_collision_is_told(file, old, new, said):
    found = taken(edited(file, old, new))
    assert len(found) == 1
    assert said in found[0]


def test_every_collision_is_told_at_once():
    texts = edited("ggml.h", "GGML_TYPE_Q2_0    = 42", "GGML_TYPE_A = 48, GGML_TYPE_B = 50, GGML_TYPE_C = 42")
    assert len(taken(texts)) == 2


def test_tables_that_agree_are_fine():
    assert mismatches(TEXTS) == []
    assert mismatches({"ggml/include/ggml.h": GGML_H, "ggml/src/ggml.c": "// nothing\n"}) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("ggml.h", "GGML_TYPE_F16     = 1", "GGML_TYPE_F16     = 42", "GGML_TYPE_Q2_0 and GGML_TYPE_F16 of enum ggml_"),
        ("ggml.c", "    [GGML_TYPE_F16] = {", "    [5] = {", "type_traits has no row for GGML_TYPE_F16"),
        ("ggml.c", "[GGML_TYPE_F16]", "[GGML_TYPE_F17]", "a row for GGML_TYPE_F17, which"),
        ("ggml.c", "[GGML_TYPE_F16]", "[GGML_TYPE_F32]", "more than one row for GGML_TYPE_F32"),
        ("ggml.c", '    "ADD",', '    "ADD",\n    "SUB",', "GGML_OP_NAME has 3 rows, and enum ggml_op has 2"),
        ("ggml.c", '    "x+y",', "", "GGML_OP_SYMBOL has 1 rows"),
        ("ggml.c", '"NONE",\n\n    "ADD"', '"ADD",\n\n    "NONE"', "has 'ADD' where enum ggml_op has GGML_OP_NONE"),
        ("ggml.c", "GGML_OP_COUNT == 2", "GGML_OP_COUNT == 3", "ggml.c asserts that GGML_OP_COUNT is 3"),
        ("ggml-rpc.h", "GGML_OP_COUNT == 2", "GGML_OP_COUNT == 1", "ggml-rpc.h asserts that GGML_OP_COUNT is 1"),
        ("constants.py", "Q2_0    = 42", "Q2_0    = 41", "GGML_TYPE_Q2_0 is 42 in ggml/include/ggml.h, and gguf-py"),
        ("constants.py", "    F16     = 1\n", "", "GGML_TYPE_F16 is 1 in ggml/include/ggml.h, and gguf-py"),
        ("constants.py", "    Q2_0    = 42", "    Q2_0    = 42\n    Q3_0    = 43", "Q3_0 is not a type of"),
        ("constants.py", "    GGMLQuantizationType.F16:     (1, 2),\n", "", "GGML_QUANT_SIZES has no row for F16"),
        ("constants.py", "GGMLQuantizationType.F16:", "GGMLQuantizationType.F18:", "has a row for F18"),
        ("llama.h", "GUESSED = 1024", "GUESSED = 1", "LLAMA_FTYPE_GUESSED and LLAMA_FTYPE_MOSTLY_F16 of llama_ftype"),
        ("llama.h", "MOSTLY_F16 = 1", "MOSTLY_F16 = 2", "LLAMA_FTYPE_MOSTLY_F16 is 2 in include/llama.h, and gguf-py"),
        ("constants.py", "    GUESSED    = 1024\n", "", "LLAMA_FTYPE_GUESSED is 1024 in include/llama.h, and gguf-py"),
        ("constants.py", "GUESSED    = 1024", "GUESSED    = 0", "GUESSED and ALL_F32 of LlamaFileType are both 0"),
    ],
)
def test_tables_that_contradict_each_other_are_told(file, old, new, said):
    assert any(said in problem for problem in mismatches(edited(file, old, new)))


def test_our_op_must_be_in_its_place_in_every_table():
    """An upstream that adds an op behind the anchor's: the counts still agree, the order does not."""
    texts = {
        **TEXTS,
        "ggml/include/ggml.h": OPS_H.replace("GGML_OP_COUNT", "GGML_OP_FLASH_ATTN_EXT_MIXED, GGML_OP_COUNT"),
        "ggml/src/ggml.c": OPS_C.replace('"NONE",', '"FLASH_ATTN_EXT_MIXED", "NONE",')
        .replace('"none",', '"flash_attn_ext_mixed(x)", "none",')
        .replace("== 2", "== 3"),
        "ggml/include/ggml-rpc.h": RPC.replace("== 2", "== 3"),
    }
    found = mismatches(texts)
    assert any("'FLASH_ATTN_EXT_MIXED' where enum ggml_op has GGML_OP_NONE" in problem for problem in found)
    assert any("GGML_OP_SYMBOL has 'x+y' where flash_attn_ext_mixed(x) belongs" in problem for problem in found)


def test_something_else_is_no_llama_cpp():
    with pytest.raises(ExpectedError, match=r"it has no ggml/include/ggml\.h"):
        check_is_llama_cpp({"CMakeLists.txt"}, "that")
