"""Tables fit 80 columns without losing what a column means; in 40 they are lists."""

from __future__ import annotations

import re

import pytest
from terminal import shown_at

from qlutattn_patch.measure import bench, evaluate, profile, sampling
from qlutattn_patch.proof import align
from qlutattn_patch.system.table import Table, wrapped

LONG = "dot7-avx512vnni+dot-avx512vnni"
FIGURES = ("12.345", "12.101", "3 %", "8.12", "45 %", "61 %")
EVALUATED = ("512", "128", "4.25", "3.06", "12.24", "16.9812 ± 0.1234", "-0.0081 ± 0.0123", "0.000390 ± 0.000012")
TABLES = {
    "align": Table(
        align.COLUMNS,
        (("k4", "v4", LONG, "29", "0", "0.748", "0.738", "0.000373", "0.0264"),) * 2,
        frozenset(align.RIGHT),
    ),
    "bench": Table(
        bench.COLUMNS,
        tuple(
            (*group, cache, LONG, *FIGURES)
            for group in (("decode", "8192", "2"), ("prefill", "131072", "16"))
            for cache in ("f16", "K4V4+w512")
        ),
        frozenset(bench.RIGHT),
        bench.GROUPS,
    ),
    "eval": Table(
        evaluate.COLUMNS,
        (("K4V4+w512+s128", *EVALUATED, "0.000120", "0.0123", "98.91 %"),),
        frozenset(evaluate.RIGHT),
    ),
    "sampling": Table(
        sampling.COLUMNS,
        (("recorded", "151936", "default", "40", "18.2", "264.1", "14.5", "0 of 4096"),),
        frozenset(sampling.RIGHT),
        sampling.GROUPS,
    ),
    "profile": Table(
        profile.COLUMNS,
        (("small batch", "FLASH_ATTN_EXT_MIXED k4 v4", "4096", "1234.567", "81.2%", "301.12", "12.31", "45.12", "3%"),),
        frozenset(profile.RIGHT),
        profile.GROUPS,
    ),
}


def plain(text: str, _: str) -> str:
    return text


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


@pytest.mark.parametrize("width", [80, 40])
@pytest.mark.parametrize("name", TABLES)
def test_a_table_fits_and_nothing_is_lost(name: str, width: int) -> None:
    table = TABLES[name]
    lines = table.lines(width, plain)
    assert max(map(len, lines)) <= width
    shown = "\n".join(lines)
    for column in table.columns:
        for word in column.split():
            assert squeezed(word)[:4] in squeezed(shown), column
    for row in table.rows:
        for cell in row:
            parts = [part for part in re.split(r"[ +]", cell) if part]
            assert all(part in shown for part in parts), cell


def test_in_80_columns_it_is_a_table_and_in_40_a_list() -> None:
    wide, narrow = (TABLES["align"].lines(width, plain) for width in (80, 40))
    assert wide[0].split()[:3] == ["K", "V", "kernel"]
    assert wide[2].split() == ["k4", "v4", "dot7-avx512vnni+", "29", "0", "0.748", "0.738", "0.000373", "0.0264"]
    assert narrow[:4] == ["K k4", "  V           v4", f"  kernel      {LONG[:16]}", f"              {LONG[16:]}"]


def test_rows_of_a_group_have_a_heading_where_its_columns_do_not_fit() -> None:
    lines = TABLES["bench"].lines(80, plain)
    assert lines[0] == "work decode, keys 8192, threads 2"
    assert "work prefill, keys 131072, threads 16" in lines
    assert TABLES["bench"].lines(None, plain)[0].startswith("work")


def test_what_is_too_wide_for_one_table_continues_below() -> None:
    columns = ("cache", *(f"figure{number}" for number in range(10)))
    table = Table(columns, (("K4V4", *["0.123456789"] * 10),), frozenset(columns[1:]))
    lines = table.lines(80, plain)
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if line] == ["cache", "K4V4"] * 2
    assert all(name in "\n".join(lines) for name in columns)


def test_without_a_width_nothing_is_wrapped() -> None:
    lines = TABLES["align"].lines(None, plain)
    assert len(lines) == 3
    assert LONG in lines[1]


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("", 5, [""]),
        ("a b", 3, ["a b"]),
        ("aa bb", 3, ["aa", "bb"]),
        ("/usr/lib/gcc", 6, ["/usr/", "lib/", "gcc"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
    ],
)
def test_where_a_cell_is_wrapped(text: str, width: int, lines: list[str]) -> None:
    assert wrapped(text, width) == lines


@pytest.mark.parametrize("width", [80, 40])
def test_terminals_of_80_and_40_columns(width: int) -> None:
    said, _ = shown_at(width, "doctor")
    rows = [re.sub(r"\x1b\[\d*m", "", line) for line in said.splitlines()]
    table = rows[: next(at for at, line in enumerate(rows) if line.startswith("CPU: "))]
    assert max(map(len, table)) <= width
    for name in ("C++ compiler", "ccache", "building again in"):
        assert name in "\n".join(table)
    assert "\x1b[32mok\x1b[0m" in said  # states are coloured
    assert " ".join(table[0].split()) == ("what version where needed for" if width == 80 else "ok what Python >= 3.10")
