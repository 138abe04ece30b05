"""The mixed KV cache under clang's sanitizers: its life through the C API, and a fuzzer on the loader of its states."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import effort
import fuzz
import pytest
import tiny_gemma3n
import tiny_hybrids
import tiny_latent
import tiny_models
import tiny_t5

from qlutattn_patch.commands import main
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.workspace import Workspace

pytestmark = pytest.mark.compiler

NATIVE = Path(__file__).parent
K4V4 = ("qlutattn_k4_128x128", "qlutattn_v4_128x128")


@pytest.fixture(scope="module")
def workspace() -> Workspace:
    """The project with its patched tree, where clang and its libFuzzer are there."""
    try:
        fuzz.check_tools()
    except ExpectedError as lacking:
        pytest.skip(f"{lacking.cause} To get it: {lacking.hint}")
    assert main.run(["apply"]) == 0
    return Workspace.find()


@pytest.fixture(scope="module")
def fuzzer(workspace: Workspace) -> Path:
    """The fuzzer; beside it lie its object files."""
    return fuzz.build(workspace, "state")


TARGET = fuzz.TARGETS["state"]
CACHE = [Path(source).with_suffix(".o").name for source in TARGET.sources]


def link(workspace: Workspace, objects: list[Path], program: Path, *flags: str) -> Path:
    """Link a program as the fuzzer is linked."""
    return fuzz.link(TARGET, workspace.build_dir(TARGET.preset) / "bin", objects, program, list(flags))


@pytest.mark.nightly
def test_the_fuzzer_finds_nothing(fuzzer: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    finding = fuzz.fuzz(fuzzer, tmp_path, seconds=effort.most(20, 600), seed=effort.most(1, 0))
    said = capfd.readouterr().err
    assert finding is None, said[-4000:]
    executed = re.search(r"number_of_executed_units:\s*(\d+)", said)
    assert executed
    assert int(executed[1]) > fuzz.SEEDS


MUTANTS = {
    "a refused state that is half put": (
        "    in.check_checksum();\n    streams.resize(",
        "    const_cast<llama_kv_cache_mixed &>(kv).seq_rm(0, 5, 9);\n    in.check_checksum();\n    streams.resize(",
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
    objects = [fuzzer.parent / one for one in ("fuzz_state.o", *CACHE) if one != "llama-kv-mixed-state.o"]
    objects.append(fuzz.compile_one(workspace, TARGET, mutant, tmp_path, fuzz.COVERAGE))
    program = link(workspace, objects, tmp_path / "fuzz_mutant", "-fsanitize=fuzzer")
    finding = fuzz.fuzz(program, tmp_path, seconds=60, seed=1)
    said = capfd.readouterr().err
    assert finding, said[-4000:]
    assert re.search(words, said), said[-4000:]


@pytest.fixture(scope="module")
def programs(workspace: Workspace, fuzzer: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What drives the cache; its sources again, since there is no libFuzzer here to count coverage."""
    folder = tmp_path_factory.mktemp("sanitized")
    cache = [fuzz.compile_one(workspace, TARGET, workspace.tree / each, folder, []) for each in TARGET.sources]
    drivers = [NATIVE / source for source in ("kv_cache.cpp", "kv_hybrid.cpp", "kv_shift.cpp")]
    objects = {each: fuzz.compile_one(workspace, TARGET, each, folder, []) for each in drivers}
    return {each.name: link(workspace, [driver, *cache], folder / each.stem) for each, driver in objects.items()}


# MLA, ALiBi, positions of several parts, layers that share keys and values
OTHERS = ("deepseek2", "refact", "qwen3vl", "gemma4")


def write_model(path: Path, arch: str) -> Path:
    """Write a small model of an architecture."""
    if arch in tiny_hybrids.BLOCKS:
        return tiny_hybrids.write_hybrid(path, arch)
    if arch == "deepseek2":
        return tiny_latent.write_latent(path, tiny_latent.Latent(arch, n_rope=64))
    if arch == "gemma3n":
        return tiny_gemma3n.write_gemma3n(path)
    if arch == "t5":
        return tiny_t5.write_t5(path)
    n_layer = tiny_models.Shape.of(arch, 128).n_layer
    return tiny_models.write_model(path, tiny_models.Shape(arch=arch, n_head=2, n_head_kv=1, n_layer=n_layer))


@pytest.mark.parametrize(
    ("source", "arch", "scenario", "options"),
    [
        ("kv_cache.cpp", "llama", "restore", ["seqs=2", "n=400", "after=200"]),
        ("kv_cache.cpp", "llama", "damage", ["times=20", "n=300"]),
        ("kv_cache.cpp", "llama", "random", ["seqs=3", "tokens=1500"]),
        ("kv_cache.cpp", "gemma3", "random", ["seqs=3", "unified=1", "tokens=1000"]),
        ("kv_cache.cpp", "gemma3", "damage", ["times=20", "n=300"]),
        ("kv_cache.cpp", "llama", "cuts", ["turns=2", "ctx=1280", "ubatch=64", "compare=0"]),
        ("kv_cache.cpp", "llama", "convert", ["to_window=4000"]),
        ("kv_cache.cpp", "llama", "convert", ["window=512", "ctx=4096", "to_window=16", "to_ctx=1024"]),
        ("kv_cache.cpp", "nemotron_h", "damage", ["times=20", "n=300"]),
        ("kv_cache.cpp", "t5", "random", ["seqs=2", "unified=1", "tokens=1000"]),
        ("kv_hybrid.cpp", "qwen35", "random", ["seqs=3", "rs=4", "tokens=1500"]),
        ("kv_hybrid.cpp", "lfm2", "random", ["seqs=3", "unified=1", "rs=4", "shift=1", "tokens=1500"]),
        *(("kv_cache.cpp", arch, "random", ["seqs=3", "tokens=1000"]) for arch in OTHERS),
        *(("kv_cache.cpp", arch, "restore", ["n=400", "after=50", "exact=0"]) for arch in ("deepseek2", "gemma3n")),
        ("kv_cache.cpp", "deepseek2", "cuts", ["turns=2", "ctx=1280", "ubatch=64", "compare=0"]),
        ("kv_cache.cpp", "qwen3vl", "images", ["height=10"]),
        ("kv_shift.cpp", "llama", "context", ["n=700", "rounds=2", "save=1"]),
        ("kv_shift.cpp", "llama", "many", ["times=20"]),
        ("kv_shift.cpp", "gemma3", "divide", ["n=700"]),
    ],
)
def test_the_cache_is_clean(
    source: str, arch: str, scenario: str, options: list[str], programs: dict[str, Path], tmp_path: Path
) -> None:
    model = write_model(tmp_path / "m.gguf", arch)
    argv = [programs[source], model, scenario, *K4V4, *options, "threads=1"]
    done = subprocess.run([str(one) for one in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
