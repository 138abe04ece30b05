"""Markdown sources have one sentence per line, and plain words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import ROOT, git

PAGES = sorted(ROOT / name for name in git(ROOT, "ls-files", "--", "*.md").splitlines())
ABBREVIATIONS = re.compile(r"\b(?:e\.g|i\.e|cf|vs|etc|al)\.", re.I)
CLOSERS = r"[)\]\"'*_]*"
ENDS = re.compile(rf"[.!?]{CLOSERS}$")
TWO = re.compile(rf"[.!?]{CLOSERS}\s+\S")
# What has no sentences: fenced blocks, comments, front matter; headings, tables, indented code, targets of links.
SKIPPED = re.compile(r"^ *(```|~~~).*?^ *\1|<!--.*?-->|\A---\n.*?^---$", re.S | re.M)
APART = re.compile(r"#|\||    |\[[^\]]+\]: ")
ITEM = re.compile(r"\s*(?:[-*+]|\d+\.)\s+(?:\[[ x]\]\s+)?")
RETIRED = (
    r"in words",
    r"\btold in\b",
    r"\bloudly\b",
    r"\bmend(?:s|ed)?\b",
    r"way of data",
    r"bugs? of ours",
    r"for machines",
    r"the house",
    r"llama\.cpps",
)


def prose(text: str) -> list[tuple[int, str]]:
    """The lines of sentences, numbered: where there is code, a table, a heading or a comment, an empty line."""
    text = SKIPPED.sub(lambda match: "\n" * match[0].count("\n"), text)
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        bare = re.sub(r"(`+).*?\1", "C", line).rstrip()
        bare = ABBREVIATIONS.sub("C", re.sub(r"\]\([^)]*\)", "]", bare))
        found.append((number, "" if APART.match(bare) else bare))
    return found


def wrong_lines(text: str) -> list[str]:
    """Where a line has two sentences, or a sentence goes on in the next line."""
    found = []
    lines = prose(text)
    for (number, line), (_, following) in zip(lines, [*lines[1:], (0, "")], strict=True):
        item = ITEM.match(line)
        sentence = line[item.end() :] if item else line.strip()
        if TWO.search(sentence):
            found.append(f"line {number} has two sentences: {line}")
        goes_on = following and not ITEM.match(following)
        if sentence and goes_on and not ENDS.search(sentence):
            found.append(f"the sentence of line {number} goes on in the next line: {line}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_sentence_has_a_line(page: Path) -> None:
    assert wrong_lines(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_words_are_plain(page: Path) -> None:
    text = "\n".join(line for _, line in prose(page.read_text(encoding="utf-8")))
    assert re.findall("|".join(RETIRED), text, re.I) == []


@pytest.mark.parametrize(
    "text",
    ["One. Two.", "- One. `two` is.", "1. **One.** Two.", "(One.) Two.", "One\ntwo.", "- One\n  two.", "One? 2 it is."],
)
def test_other_layouts_are_noticed(text: str) -> None:
    assert len(wrong_lines(f"# A. B.\n\n{text}\n")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "One.\nTwo 0.3 of it.",
        "- One,\n- e.g. two.\n\n  Three.",
        "| One. Two. |",
        "```\nOne. Two.\n```",
        "`One. Two.` is (see [a](b. c.md)).",
        "<!-- One.\nTwo. Three -->",
        "One:\n\n    a. b",
    ],
)
def test_what_has_a_line_for_each_sentence_passes(text: str) -> None:
    assert wrong_lines(text) == []
    assert wrong_lines(f"---\na: b. c\nd: e\n---\n{text}") == []
