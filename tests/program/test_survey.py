"""docs/survey.md keeps its order, says what each row rests on, and gives no figure for what was not read."""

from __future__ import annotations

import re

import pytest
from helpers import ROOT

PAGE = (ROOT / "docs" / "survey.md").read_text(encoding="utf-8")
COLUMNS = ("number", "idea", "reported", "read", "fit", "ratio", "here")
ROWS = [
    dict(zip(COLUMNS, (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]), strict=True))
    for line in PAGE.partition("## The list")[2].splitlines()
    if re.match(r"\| \d+ \|", line)
]
NO_FIGURE = ("no figure", "not in what was read")


def gain_and_effort(row: dict[str, str]) -> tuple[int, int]:
    gain, effort = map(int, row["ratio"].split(" / "))
    assert 1 <= gain <= 5
    assert 1 <= effort <= 5
    return gain, effort


def test_it_is_long_enough_and_names_nothing_twice() -> None:
    assert len(ROWS) >= 42
    assert f"{len(ROWS)} papers and engines" in PAGE
    assert [row["number"] for row in ROWS] == [str(number) for number in range(1, len(ROWS) + 1)]
    links = [re.match(r"\[[^\]]+\]\((https://[^)]+(?:\([^)]*\))?)\): \S", row["idea"]) for row in ROWS]
    assert all(links)
    assert len({link[1] for link in links if link}) == len(ROWS)


def test_the_best_gain_for_the_effort_comes_first() -> None:
    ranks = [(-gain / effort, -gain) for gain, effort in map(gain_and_effort, ROWS)]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["number"])
def test_every_row_has_its_status_and_its_source(row: dict[str, str]) -> None:
    assert re.match(r"\*\*(done|part|later|no)\*\*: \S", row["here"])
    assert row["read"] in ("A", "P", "S", "M")
    assert row["fit"]
    has_figure = any(char.isdigit() for char in row["reported"])
    assert has_figure or any(words in row["reported"] for words in NO_FIGURE)
    if row["read"] == "M":
        assert row["reported"] == "no figure found"


@pytest.mark.parametrize("code", ["A", "P", "S", "M"])
def test_the_sources_are_counted(code: str) -> None:
    (count,) = re.findall(rf"^\| {code} \| (\d+) \|", PAGE, re.MULTILINE)
    assert int(count) == sum(row["read"] == code for row in ROWS)
