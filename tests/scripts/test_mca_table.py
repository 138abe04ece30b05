"""The table of the NEON kernels: loops found in assembly, and the whole of it where clang and llvm-mca are there."""

from __future__ import annotations

import subprocess
import sys

import mca_table
import pytest
from helpers import ROOT
from mca_table import Loop, Part, innermost_loops, main_loop, symbol

from qlutattn_patch.commands import main
from qlutattn_patch.system.errors import ExpectedError

ASSEMBLY = """\
other:                                  // @other
\tb.ne\tother
.Lfunc_end0:
_ZL8dot_rowsILi4ELb1EEvPKi: // @_ZL8dot_rowsILi4ELb1EEvPKi
\t.cfi_startproc
// %bb.0:
\tmovi\tv0.2d, #0000000000000000
.LBB1_1:                                // =>This Loop Header: Depth=1
\tmov\tx9, xzr
.LBB1_2:                                //   Parent Loop BB1_1 Depth=1
\tldp\tq4, q5, [x10], #32
\tsdot\tv0.4s, v4.16b, v5.16b
\tsdot\tv1.4s, v4.16b, v5.4b[1]
\tsubs\tx9, x9, #1
\tb.ne\t.LBB1_2
// %bb.3:
\tcbnz\tx8, .LBB1_1
.LBB1_4:
\tldr\tq4, [x10]
\tsdot\tv0.4s, v4.16b, v5.16b
\tcbz\tx8, .LBB1_4
\ttbz\tw8, #3, .LBB1_5
.LBB1_5:
\tret
.Lfunc_end1:
peeled:
.LBB2_1:
\tmov\tx9, x10
\tsdot\tv0.4s, v4.16b, v5.16b
\tcbnz\tx9, .LBB2_3
.LBB2_2:
\tcbnz\tx8, .LBB2_1
\tret
.LBB2_3:
\tsdot\tv0.4s, v4.16b, v5.16b
\tsubs\tx9, x9, #1
\tb.ne\t.LBB2_3
\tb\t.LBB2_2
.Lfunc_end2:
"""
PART = Part("qlutattn/tbl-simd.cpp", "dot_rows<4, true>", {"sdot": 16})


def test_the_loops_of_a_function_that_hold_no_other() -> None:
    first, last = innermost_loops(ASSEMBLY, symbol("dot_rows<4, true>"))
    assert [line.split()[0] for line in first] == ["ldp", "sdot", "sdot", "subs", "b.ne"]
    assert [line.split()[0] for line in last] == ["ldr", "sdot", "cbz"]


def test_a_loop_that_lies_behind_the_one_around_it() -> None:
    (body,) = innermost_loops(ASSEMBLY, symbol("peeled"))
    assert [line.split()[0] for line in body] == ["sdot", "subs", "b.ne"]


def test_the_main_loop_is_the_one_that_does_most_at_once() -> None:
    loop = main_loop(ASSEMBLY, PART)
    assert loop.times == 128 * 128 * 4 / 32
    assert (loop.vector, dict(loop.scalar)) == (3, {"subs": 1, "b.ne": 1})


def test_general_registers_make_no_vector_instruction() -> None:
    loop = Loop(("add\tx9, x9, w8, sxtw", "ld1r\t{ v3.4s }, [x5]", "str\td1, [sp, #8]", "ldr\tw3, [x2]"), 1)
    assert (loop.vector, dict(loop.scalar)) == (2, {"add": 1, "ldr": 1})


@pytest.mark.parametrize(
    ("function", "mangled", "fits"),
    [
        ("ggml_vec_dot_f16", "ggml_vec_dot_f16", True),
        ("ggml_vec_mad_f16", "_ZL16ggml_vec_mad_f16iPtPKtf", True),
        ("ggml_vec_dot_f16", "ggml_vec_dot_f16_unroll", False),
        ("lut_rows<4>", "_ZL8lut_rowsILi4EEvRK4task", True),
        ("lut_rows<4>", "_ZL8lut_rowsILi2EEvRK4task", False),
        ("dot_rows<2, false, 4>", "_ZN1aL8dot_rowsILi2ELb0ELi4EEEvRK4task", True),
        ("rows<4>", "_ZL8lut_rowsILi4EEvRK4task", False),
        ("rows", "_Z4rowsRK4task", True),
        ("rows", "_Z14rowsRK4taskabc", False),
    ],
)
def test_a_function_is_found_by_its_mangled_name(function: str, mangled: str, fits: bool) -> None:
    assert bool(symbol(function).fullmatch(mangled)) is fits


@pytest.mark.parametrize(
    "part", [Part("x.cpp", "gone<1>", {"sdot": 16}), Part("x.cpp", "dot_rows<4, true>", {"tbl": 1})]
)
def test_a_kernel_that_is_not_there_any_more_is_named(part: Part) -> None:
    with pytest.raises(ExpectedError) as failure:
        main_loop(ASSEMBLY, part)
    assert failure.value.hint == "fix the table in scripts/mca_table.py"


def test_no_llvm_mca_is_said_in_one_sentence(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["mca_table.py"])
    with pytest.raises(ExpectedError, match=r"^There is no llvm-mca on PATH\.$"):
        mca_table.find_mca()


@pytest.mark.qemu
def test_the_whole_table() -> None:
    try:
        _, version = mca_table.find_mca()
    except ExpectedError as lacking:
        pytest.skip(f"{lacking.cause} To get it: {lacking.hint}")
    assert main.run(["apply"]) == 0
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "mca_table.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) >= 2 + len(mca_table.ISAS[0].kernels) + len(mca_table.ISAS[-1].kernels)
    cpus = slice(2, 2 + len(mca_table.CPUS))
    f16 = [float(cell) for cell in rows[1][cpus]]
    # 8 products an instruction, at most two (Arm) or four (Apple) of them a cycle
    assert all(8192 / 4 <= cycles < 3 * 8192 for cycles in f16)
    found = {(row[0], row[1]): [int(cell.split()[0]) for cell in row[cpus] if cell[0].isdigit()] for row in rows[2:]}
    dotprod, i8mm = (f"`{isa.march}`" for isa in mca_table.ISAS[1:])
    for kernel in ("2 bits", "4 bits", "8 bits") if version[0] >= mca_table.MODELS_SINCE else ():
        for rows_of in ("", ", 16 rows"):
            name = f"| dot, {kernel}{rows_of}"
            assert all(new < old for new, old in zip(found[name, i8mm], found[name, dotprod], strict=False)), name
