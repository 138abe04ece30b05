"""Models that upstream's generator does not make: Gemma 3n, whose layers use others' keys and values, and Step 3.5."""

from __future__ import annotations

from pathlib import Path

import effort
import pytest
import tiny_gemma3n
import tiny_step35
from kv_helpers import BOUNDS, compile_driver, findings

pytestmark = [pytest.mark.compiler, pytest.mark.core]


@pytest.fixture(scope="module")
def program(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program that drives the cache through the C API."""
    return compile_driver("kv_cache.cpp", tree, tmp_path_factory.mktemp("kv gemma3n"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "gemma3n": tiny_gemma3n.write_gemma3n(folder / "gemma3n.gguf"),
        "step35": tiny_step35.write_step35(folder / "step35.gguf"),
    }


@pytest.fixture(scope="module")
def gemma3n(models: dict[str, Path]) -> Path:
    return models["gemma3n"]


@pytest.mark.parametrize("pair", ["k4v4", "k2v2", "k4", "v4"])
@pytest.mark.parametrize("arch", ["gemma3n", "step35"])
def test_logits_are_near_those_of_f16(arch: str, pair: str, program: Path, models: dict[str, Path]) -> None:
    [found] = findings(program, models[arch], "logits", pair)
    assert found["nmse_blind"] > 0.05, "attention does not matter in this model"
    assert 0 < found["nmse_tail"] < BOUNDS[pair] * found["nmse_blind"]


def test_layers_that_use_others_take_no_memory(program: Path, gemma3n: Path) -> None:
    [found] = findings(program, gemma3n, "memory", "k4v4", ctx=32768)
    # of 25 layers, 20 have keys and values, and 4 of these no window
    assert found["packed_bytes"] == 4 * 2 * tiny_gemma3n.HEAD_DIM * 32768 * 4.25 / 8


@pytest.mark.parametrize("arch", ["gemma3n", "step35"])
def test_generation_goes_on_after_a_restore(arch: str, program: Path, models: dict[str, Path]) -> None:
    rows = findings(program, models[arch], "restore", "k4v4", seqs=2, exact=0)
    assert all(row["worst"] < 1e-3 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("unified", [0, 1])
def test_sequences_do_not_leak(unified: int, program: Path, gemma3n: Path) -> None:
    findings(program, gemma3n, "leak", "k4v4", seqs=2, unified=unified)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("options", [{}, {"seqs": 3, "unified": 1}], ids=str)
def test_a_long_random_run_keeps_to_upstreams_cache(options: dict[str, int], program: Path, gemma3n: Path) -> None:
    [found] = findings(program, gemma3n, "random", "k4v4", **options, tokens=effort.most(4000, 40000))
    assert found["removals"] > 10
    assert found["nmse"] < BOUNDS["k4v4"]
    assert found["worst"] < 0.2
