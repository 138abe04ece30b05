"""scripts/quality_simulation.py, on one window of a tiny model."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT
from tiny_models import write_model

SCRIPT = ROOT / "scripts" / "quality_simulation.py"


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, SCRIPT, *words]
    return subprocess.run([str(word) for word in argv], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """What the head of a file of logits is."""
    path = tmp_path / "tokens.kld"
    drawn = np.random.default_rng(3).integers(0, 500, 2 * 1024).astype("<i4")
    path.write_bytes(struct.pack("<8sIii", b"_logits_", 1024, 513, 2) + drawn.tobytes())
    return path


def test_more_bits_and_a_window_diverge_less(tmp_path: Path, tokens: Path) -> None:
    model = write_model(tmp_path / "tiny.gguf")
    done = run(model, tokens, "--windows", "1", "--only", r"^K[124]V[124]$|^K4V4\+w128\+s128$|^K2, no offset$|^V4$")
    assert done.returncode == 0, done.stderr
    found = {line[:32].strip(): float(line[32:].split()[0]) for line in done.stdout.splitlines()}
    assert found["K4V4+w128+s128"] < found["K4V4"] < found["K4V2"] < found["K2V2"] < found["K2V1"] < found["K1V1"]
    assert 0 < found["V4"] < found["K4V4"]
    assert found["K2, no offset"] > found["V4"]
    assert all(re.search(r"  \d+\.\d\d %$", line) for line in done.stdout.splitlines())


def test_another_files_tokens_are_not_read(tmp_path: Path) -> None:
    model, other = write_model(tmp_path / "tiny.gguf"), tmp_path / "other"
    other.write_bytes(bytes(100))
    done = run(model, other)
    assert (done.returncode, done.stderr) == (1, f"{other} is not a file of logits for contexts of 1024\n")
