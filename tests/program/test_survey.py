"""docs/survey.md keeps its order, says what each row rests on, and gives no figure for what was not read."""

from __future__ import annotations

import re

import pytest
from helpers import ROOT

PAGE = (ROOT / "docs" / "survey.md").read_text(encoding="utf-8")
ROW = re.compile(
    r"^\| (?P<gain>[1-5]) / (?P<effort>[1-5])"
    r" \| \[(?P<name>[^\]]+)\]\((?P<link>https://[^\s]+)\): (?P<idea>[^|]+)"
    r"<br>\*Reported \((?P<read>\w)\):\* (?P<reported>[^|]+)"
    r" \| (?P<fit>[^|]+) \| \*\*(?P<status>\w+)\*\*: (?P<why>[^|]+) \|$"
)
LINES = [line for line in PAGE.partition("## The list")[2].splitlines() if re.match(r"\| \d / \d \|", line)]
ROWS = [found.groupdict() for line in LINES if (found := ROW.match(line))]
NO_FIGURE = ("no figure", "not in what was read")


def test_it_is_long_enough_and_names_nothing_twice() -> None:
    assert len(ROWS) == len(LINES) >= 42
    assert f"{len(ROWS)} papers and engines" in PAGE
    assert len({row["link"] for row in ROWS}) == len({row["name"] for row in ROWS}) == len(ROWS)


def test_the_best_gain_for_the_effort_comes_first() -> None:
    ranks = [(-int(row["gain"]) / int(row["effort"]), -int(row["gain"])) for row in ROWS]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_every_row_has_its_status_and_its_source(row: dict[str, str]) -> None:
    assert row["status"] in ("done", "part", "later", "no")
    assert row["read"] in ("A", "P", "S", "M")
    has_figure = any(char.isdigit() for char in row["reported"])
    assert has_figure or any(words in row["reported"] for words in NO_FIGURE)
    if row["read"] == "M":
        assert row["reported"] == "no figure found"


@pytest.mark.parametrize("code", ["A", "P", "S", "M"])
def test_the_sources_are_counted(code: str) -> None:
    (count,) = re.findall(rf"^\| {code} \| (\d+) \|", PAGE, re.MULTILINE)
    assert int(count) == sum(row["read"] == code for row in ROWS)
