"""The mixed KV cache under clang's sanitizers: its life through the C API, and a fuzzer on the loader of its states."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import fuzz
import pytest
import tiny_models

from qlutattn_patch import cli
from qlutattn_patch.errors import ExpectedError
from qlutattn_patch.workspace import Workspace

pytestmark = pytest.mark.compiler

NATIVE = Path(__file__).parent / "native"
K4V4 = ("qlutattn_k4_128x128", "qlutattn_v4_128x128")


@pytest.fixture(scope="module")
def workspace() -> Workspace:
    """The project with its patched tree, where clang and its libFuzzer are there."""
    try:
        fuzz.check_tools()
    except ExpectedError as lacking:
        pytest.skip(f"{lacking.cause} To get it: {lacking.hint}")
    assert cli.run(["apply"]) == 0
    return Workspace.find()


@pytest.fixture(scope="module")
def fuzzer(workspace: Workspace) -> Path:
    """The fuzzer; beside it lies its object file, and in `bin` what it is linked to."""
    return fuzz.build(workspace, "state")


def clang(workspace: Workspace, fuzzer: Path, *argv: str | Path) -> None:
    """Compile or link something like the fuzzer."""
    target = fuzz.TARGETS["state"]
    include = [f"-I{workspace.tree / folder}" for folder in target.include]
    libraries = [
        f"-L{fuzzer.parent / 'bin'}",
        f"-Wl,-rpath,{fuzzer.parent / 'bin'}",
        *(f"-l{one}" for one in target.libraries),
    ]
    command = [fuzz.check_tools().cxx, "-std=c++17", "-O1", "-g", *fuzz.SANITIZERS, *include, *argv, *libraries]
    done = subprocess.run([str(one) for one in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_fuzzer_finds_nothing(fuzzer: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    finding = fuzz.fuzz(fuzzer, tmp_path, seconds=20)
    said = capfd.readouterr().err
    assert finding is None, said[-4000:]
    executed = re.search(r"number_of_executed_units:\s*(\d+)", said)
    assert executed
    assert int(executed[1]) > fuzz.SEEDS


MUTANTS = {
    "a refused state that is half put": (
        "    in.check_checksum();\n    for (auto & s",
        "    const_cast<llama_kv_cache_mixed &>(kv).seq_rm(0, 5, 9);\n    in.check_checksum();\n    for (auto & s",
        "a state that was refused changed the cache",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_fuzzer_notices(
    name: str, workspace: Workspace, fuzzer: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    old, new, words = MUTANTS[name]
    text = (workspace.tree / "src" / "llama-kv-mixed-state.cpp").read_text(encoding="utf-8")
    assert text.count(old) == 1
    mutant = tmp_path / "mutant.cpp"
    mutant.write_text(text.replace(old, new), encoding="utf-8")
    # what the program itself defines comes before what libllama does
    program = tmp_path / "fuzz_mutant"
    clang(workspace, fuzzer, "-fsanitize=fuzzer", mutant, fuzzer.with_suffix(".o"), "-o", program)
    finding = fuzz.fuzz(program, tmp_path, seconds=60)
    said = capfd.readouterr().err
    assert finding, said[-4000:]
    assert re.search(words, said), said[-4000:]


@pytest.mark.parametrize(
    ("arch", "scenario", "options"),
    [
        ("llama", "restore", ["seqs=2", "n=400", "after=200"]),
        ("llama", "damage", ["times=20", "n=300"]),
        ("llama", "random", ["seqs=3", "tokens=1500"]),
        ("gemma3", "random", ["seqs=3", "unified=1", "tokens=1000"]),
        ("gemma3", "damage", ["times=20", "n=300"]),
    ],
)
def test_the_cache_is_clean(
    arch: str, scenario: str, options: list[str], workspace: Workspace, fuzzer: Path, tmp_path: Path
) -> None:
    program = fuzzer.parent / "kv_cache"
    clang(workspace, fuzzer, NATIVE / "kv_cache.cpp", "-o", program)
    model = tiny_models.write_model(tmp_path / "m.gguf", tiny_models.Shape(arch=arch, n_head=2, n_head_kv=1))
    argv = [program, model, scenario, *K4V4, *options, "threads=1"]
    done = subprocess.run([str(one) for one in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
