"""Every command in the README exists and works, and what it states as a number is what the code gives."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest
from helpers import ROOT
from tiny_models import CORPUS, write_model

from qlutattn_patch.formats import load_formats

UPSTREAMS = (ROOT / "docs" / "upstreams.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.S)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
QLUTATTN = [shlex.split(line)[1:] for line in COMMANDS if line.startswith("qlutattn ")]
MAKE = sorted(
    {word for text in [*COMMANDS, README] for word in re.findall(r"make ([a-z0-9]+)`?", text)}
    & {"run", "test", "check", "arm64"}
)


def test_only_commands_that_are_tested() -> None:
    assert all(line.startswith(("qlutattn ", "make ")) for line in COMMANDS)
    assert len(QLUTATTN) > 8


@pytest.mark.parametrize("target", MAKE)
def test_make_targets_exist(target: str) -> None:
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What stands for the files that commands name: a model with random weights, a text, a place for a picture."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "T.txt").write_text(CORPUS * 12, encoding="utf-8")
    return {
        "M.gguf": str(write_model(folder / "M.gguf")),
        "T.txt": str(folder / "T.txt"),
        "kld.svg": str(folder / "kld.svg"),
    }


@pytest.mark.compiler
@pytest.mark.parametrize("argv", QLUTATTN, ids=" ".join)
def test_commands_work(argv: list[str], files: dict[str, str]) -> None:
    argv = [files.get(word, word) for word in argv]
    done = subprocess.run(
        [sys.executable, "-m", "qlutattn_patch", *argv], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout[-4000:]


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


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link


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
