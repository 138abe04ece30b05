"""What the README states as a number is what the code gives. tests/program/test_docs.py runs its commands."""

from __future__ import annotations

import re

from helpers import ROOT

from qlutattn_patch.templates.formats import load_formats

UPSTREAMS = (ROOT / "docs" / "upstreams.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_sizes_are_those_of_the_types() -> None:
    rows = re.findall(r"\| `(\w+)`, `(\w+)` \| token, channel \| ([\d.]+) \| ([\d.]+) % \| (\d+) MiB \|", README)
    types = {kind.name: kind for kind in load_formats(ROOT / "templates" / "formats.toml").types}
    assert len(rows) * 2 == len(types)
    values = 2 * 32 * 8 * 128 * 32768
    for k, v, bpw, saving, size in rows:
        for kind in (types[k], types[v]):
            assert float(bpw) == kind.bpw
            assert float(saving) == round(100 * (1 - kind.bpw / 16), 1)
            assert int(size) == values * kind.bpw / 8 / 2**20


def test_the_lines_touched_are_as_generated() -> None:
    told = re.search(r"upstream lines it touches \((\d+) in all\)", README)
    assert told
    text = (ROOT / "docs" / "patches.md").read_text(encoding="utf-8")
    assert f"Together they touch {told[1]} lines" in text


def test_the_matrix_is_the_one_in_the_docs() -> None:
    tables = [re.search(r"```text\n(upstream  llama\.cpp .*?)```", page, re.S) for page in (README, UPSTREAMS)]
    assert all(tables)
    assert tables[0][1] == tables[1][1]
    *rows, verdict = [line.split() for line in tables[0][1].splitlines()[1:]]
    assert len(rows) == 8
    assert all(row[2:7] == ["ok"] * 5 for row in rows)
    assert verdict[:4] == ["PASS", "8", "of", "8"]
