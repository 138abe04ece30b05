"""scripts/level_error.py, on a few lanes."""

from __future__ import annotations

import subprocess
import sys

from helpers import ROOT

SCRIPT = ROOT / "scripts" / "level_error.py"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(SCRIPT), *words]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)


def test_more_levels_lose_less_and_evenly_spaced_ones_more() -> None:
    books = ("64", "36,120", "6,18,30,42,56,72,92,122", "8,24,40,56,72,88,104,120")
    done = run(*books, "--lanes", "500")
    assert done.returncode == 0, done.stderr
    found = {line.split()[0]: float(line.split()[2]) for line in done.stdout.splitlines()}
    one, two, four, even = (found[book] for book in books)
    assert 0.35 < one < 0.37
    assert 0.11 < two < 0.12
    assert 0.0085 < four < 0.0095 < even < 0.013


def test_what_is_no_codebook_is_named() -> None:
    for text in ("1,2,3", "36,12", "0,64", "64,128"):
        done = run(text)
        assert done.returncode == 2
        assert f"'{text}' is not an upper half of 2, 4 or 16 levels" in done.stderr
