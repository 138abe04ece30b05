"""What is upstream's must stay so: quantisers, rows of stock types, types of files, and an honest rpc protocol."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import ROOT, edit, git, snapshot

from qlutattn_patch.patches.generate import make_series
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.patches.untouched import changes, digests
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.git import Repository
from qlutattn_patch.templates.formats import load_formats
from qlutattn_patch.templates.spec import load_templates
from qlutattn_patch.tree.worktree import apply
from qlutattn_patch.upstream.layout import CONSTANTS_PY, GGML_C, GGML_CPU_C, GGML_H, LLAMA_H, LLAMA_QUANT_CPP, RPC_H
from qlutattn_patch.workspace import Workspace

WORKSPACE = Workspace(ROOT, ROOT / "vendor" / "llama.cpp")
ROWS = """\
table[GGML_TYPE_COUNT] = {
    [GGML_TYPE_F16] = {
        .vec_dot = f16,
    },
    [GGML_TYPE_Q8_0] = {
#if defined(X)
        .nrows = 2,
#endif
    },
};
"""
TEXTS = {
    GGML_H: "enum ggml_ftype { GGML_FTYPE_UNKNOWN = -1, GGML_FTYPE_ALL_F32 = 0, };\nenum ggml_op { GGML_OP_ADD, };\n",
    GGML_C: ROWS.replace("table", "type_traits") + "\nsize_t ggml_quantize_chunk(\n    int a) {\n    return a;\n}\n",
    GGML_CPU_C: ROWS.replace("table", "type_traits_cpu"),
    RPC_H: "".join(f"#define RPC_PROTO_{part}_VERSION {n}\n" for n, part in enumerate(("MAJOR", "MINOR", "PATCH"), 5)),
    LLAMA_H: "enum llama_ftype { LLAMA_FTYPE_ALL_F32 = 0, };\n",
    CONSTANTS_PY: "    GGMLQuantizationType.Q8_0: (32, 2 + 32),\n"
    "class LlamaFileType(IntEnum):\n    ALL_F32 = 0\n\n\nX = 1\n",
}


def edited(file: str, old: str, new: str) -> dict[str, str]:
    assert old in TEXTS[file]
    return {**TEXTS, file: TEXTS[file].replace(old, new, 1)}


def test_what_is_the_same_is_fine() -> None:
    assert changes(TEXTS, TEXTS, [GGML_C, "src/llama-graph.cpp"]) == []
    assert changes({GGML_H: "", GGML_C: ""}, {GGML_H: "", GGML_C: ""}, []) == []
    assert len(digests(TEXTS)) == 6


def test_rows_beside_upstreams_are_fine() -> None:
    more = edited(GGML_C, "    [GGML_TYPE_F16]", "    [GGML_TYPE_OURS] = {\n    },\n    [GGML_TYPE_F16]")
    assert changes(TEXTS, more, [GGML_C]) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (GGML_C, ".vec_dot = f16", ".vec_dot = f17", "the row [GGML_TYPE_F16] of type_traits is changed"),
        (GGML_CPU_C, ".nrows = 2", ".nrows = 1", "the row [GGML_TYPE_Q8_0] of type_traits_cpu is changed"),
        (
            GGML_CPU_C,
            "    [GGML_TYPE_Q8_0]",
            "    [GGML_TYPE_Q9_0]",
            "the row [GGML_TYPE_Q8_0] of type_traits_cpu is gone",
        ),
        (GGML_C, "return a;", "return b;", "ggml_quantize_chunk is changed"),
        (CONSTANTS_PY, "2 + 32", "2 + 33", "the size of Q8_0 is changed"),
        (
            GGML_H,
            "GGML_FTYPE_ALL_F32 = 0,",
            "GGML_FTYPE_ALL_F32 = 0, GGML_FTYPE_OURS = 1,",
            "has GGML_FTYPE_OURS = 1 with",
        ),
        (GGML_H, "GGML_FTYPE_UNKNOWN = -1", "GGML_FTYPE_UNKNOWN = -2", "has GGML_FTYPE_UNKNOWN = -2 with the patches"),
        (LLAMA_H, "LLAMA_FTYPE_ALL_F32 = 0,", "", "llama_ftype has lost LLAMA_FTYPE_ALL_F32"),
        (CONSTANTS_PY, "ALL_F32 = 0", "ALL_F32 = 0\n    OURS = 7", "LlamaFileType has OURS = 7 with the patches"),
        (GGML_H, "GGML_OP_ADD,", "GGML_OP_ADD, GGML_OP_OURS,", "the protocol is 5.6.7 with and without the patches"),
    ],
)
def test_a_change_is_told(file: str, old: str, new: str, said: str) -> None:
    (found,) = changes(TEXTS, edited(file, old, new), [file])
    assert said in found
    assert file in found


def test_another_op_with_another_protocol_is_fine() -> None:
    after = {
        **edited(GGML_H, "GGML_OP_ADD,", "GGML_OP_ADD, GGML_OP_OURS,"),
        RPC_H: TEXTS[RPC_H].replace("PATCH_VERSION 7", "PATCH_VERSION 8"),
    }
    assert changes(TEXTS, after, []) == []


@pytest.mark.parametrize(
    "file", ["ggml/src/ggml-quants.c", "ggml/src/ggml-cpu/arch/arm/quants.c", "src/llama-quant.cpp"]
)
def test_a_patch_of_a_quantiser_is_told(file: str) -> None:
    (found,) = changes(TEXTS, TEXTS, [GGML_C, file])
    assert found.startswith(f"{file} implements upstream's types")


QUANT = "uint32_t llama_model_quantize() {\n    try {\n        quantize();\n    }\n}\n"
CALL = "        llama_qlutattn_refuse_quantize(*params);\n"


def test_only_the_refusal_may_be_added_to_a_quantiser() -> None:
    before = {**TEXTS, LLAMA_QUANT_CPP: QUANT}
    refuses = '#include "llama-qlutattn-weights.h"\n' + QUANT.replace("        quantize", f"{CALL}        quantize")
    assert changes(before, {**TEXTS, LLAMA_QUANT_CPP: refuses}, [LLAMA_QUANT_CPP]) == []
    for more in ("quantise_otherwise();\n", "// a comment\n"):
        (found,) = changes(before, {**TEXTS, LLAMA_QUANT_CPP: refuses + more}, [LLAMA_QUANT_CPP])
        assert "implements upstream's types" in found


HOOK = """
[[hook]]
file = "{}"
place = "after"
anchor = '''{}'''
text = '''{}'''
"""
BROKEN = {
    "a quantiser": (
        HOOK.format("ggml/src/ggml-quants.c", '#include "ggml-quants.h"\n', "// ours\n"),
        "ggml/src/ggml-quants.c implements upstream's types, so no patch may change it",
    ),
    "a row of a stock type": (
        HOOK.format("ggml/src/ggml.c", '        .type_name                = "q8_0",\n', "        .blck_size_x = 1,\n"),
        "ggml/src/ggml.c: the row [GGML_TYPE_Q8_0] of type_traits is changed",
    ),
    "a type of file": (
        HOOK.format("include/llama.h", "    enum llama_ftype {\n", "        LLAMA_FTYPE_K4 = 77,\n"),
        "include/llama.h: llama_ftype has LLAMA_FTYPE_K4 = 77 with the patches",
    ),
}


@pytest.mark.vendored
@pytest.mark.parametrize("name", BROKEN)
def test_generate_and_apply_refuse_such_a_hook(name: str, tmp_path: Path) -> None:
    hook, said = BROKEN[name]
    shutil.copytree(ROOT / "templates", tmp_path / "templates")
    with (tmp_path / "templates" / "hooks" / "kernel-config.toml").open("a", encoding="utf-8") as file:
        file.write(hook)
    formats = load_formats(ROOT / "templates" / "formats.toml")
    with pytest.raises(ExpectedError) as told:
        make_series(formats, load_templates(tmp_path / "templates"), Repository.open(WORKSPACE.tree))
    assert said in told.value.cause


@pytest.mark.vendored
def test_apply_refuses_patches_that_keep_the_old_protocol(tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--shared", str(WORKSPACE.tree), "mein llama.cpp")
    shutil.copytree(WORKSPACE.patches, tmp_path / "patches")
    patch = (tmp_path / "patches" / "mixed-attention.patch").read_text("utf-8")
    line = next(line for line in patch.splitlines() if line.startswith("+#define RPC_PROTO_PATCH_VERSION"))
    was = next(line for line in patch.splitlines() if line.startswith("-#define RPC_PROTO_PATCH_VERSION"))
    edit(tmp_path / "patches" / "mixed-attention.patch", line, "+" + was[1:])
    clone = replace(WORKSPACE, tree=tmp_path / "mein llama.cpp")
    before = snapshot(clone.tree)
    with pytest.raises(ExpectedError, match="with and without the patches, though the ops of"):
        apply(clone, load_series(tmp_path / "patches"))
    assert snapshot(clone.tree) == before
