"""The memory of hybrid models: a mixed KV cache beside upstream's recurrent memory, compared with upstream's own."""

from __future__ import annotations

from pathlib import Path

import effort
import pytest
import tiny_hybrids
from kv_helpers import BOUNDS, build, compile_driver, findings, serve_several_clients

pytestmark = [pytest.mark.compiler, pytest.mark.core]

ARCHS = tuple(tiny_hybrids.BLOCKS)


@pytest.fixture(scope="module")
def program(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What drives any cache."""
    return compile_driver("kv_cache.cpp", tree, tmp_path_factory.mktemp("kv cache"))


@pytest.fixture(scope="module")
def hybrid(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What drives the memory of hybrid models only."""
    return compile_driver("kv_hybrid.cpp", tree, tmp_path_factory.mktemp("kv hybrid"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each architecture."""
    folder = tmp_path_factory.mktemp("hybrids")
    return {arch: tiny_hybrids.write_hybrid(folder / f"{arch}.gguf", arch) for arch in ARCHS}


@pytest.mark.parametrize("pair", BOUNDS)
@pytest.mark.parametrize("arch", ARCHS)
def test_logits_are_near_those_of_f16(arch: str, pair: str, program: Path, models: dict[str, Path]) -> None:
    [found] = findings(program, models[arch], "logits", pair)
    assert found["nmse_blind"] > 0.05, "attention does not matter in this model"
    assert 0 < found["nmse_tail"] < BOUNDS[pair] * found["nmse_blind"]


@pytest.mark.parametrize("arch", ARCHS)
def test_every_batch_size_gives_the_same_logits(arch: str, program: Path, models: dict[str, Path]) -> None:
    rows = findings(program, models[arch], "batches", "k4v4")
    assert [row["batch"] for row in rows] == [1, 7, 128, 513]
    assert all(0 < row["nmse"] < BOUNDS["k4v4"] for row in rows)


@pytest.mark.parametrize("options", [{}, {"seqs": 2}, {"seqs": 2, "unified": 1, "exact": 0}, {"rs": 4}], ids=str)
@pytest.mark.parametrize("arch", ARCHS)
def test_generation_goes_on_after_a_restore(
    arch: str, options: dict[str, int], program: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    rows = findings(program, models[arch], "restore", "k4v4", **options, file=tmp_path / "a session.bin")
    assert [row["whole"] for row in rows] == [0, 1]
    assert all(row["worst"] < 1e-3 for row in rows)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_damaged_state_is_refused_and_changes_nothing(arch: str, program: Path, models: dict[str, Path]) -> None:
    [found] = findings(program, models[arch], "damage", "k4v4")
    assert found["refused"] > 600


@pytest.mark.parametrize("unified", [0, 1])
@pytest.mark.parametrize("arch", ARCHS)
def test_a_foreign_state_is_refused_and_changes_nothing(
    arch: str, unified: int, hybrid: Path, models: dict[str, Path]
) -> None:
    findings(hybrid, models[arch], "foreign-state", "k4v4", unified=unified)


@pytest.mark.parametrize("unified", [0, 1])
@pytest.mark.parametrize("arch", ARCHS)
def test_sequences_do_not_leak(arch: str, unified: int, program: Path, models: dict[str, Path]) -> None:
    findings(program, models[arch], "leak", "k4v4", seqs=2, unified=unified)


@pytest.mark.parametrize("rs", [0, 4])
@pytest.mark.parametrize("arch", ARCHS)
def test_a_removal_that_is_refused_changes_nothing(arch: str, rs: int, hybrid: Path, models: dict[str, Path]) -> None:
    findings(hybrid, models[arch], "refused-removal", "k4v4", rs=rs)


@pytest.mark.parametrize(("window", "worst"), [(1000, 1e-9), (64, BOUNDS["k4v4"])])
@pytest.mark.parametrize("arch", ARCHS)
def test_tokens_that_were_taken_back_give_the_same_logits(
    arch: str, window: int, worst: float, hybrid: Path, models: dict[str, Path]
) -> None:
    [found] = findings(hybrid, models[arch], "rollback", "k4v4", rs=4, window=window)
    assert found["worst"] < worst


@pytest.mark.nightly
@pytest.mark.parametrize("options", [{}, {"rs": 4}, {"rs": 4, "seqs": 3}, {"rs": 4, "seqs": 3, "unified": 1}], ids=str)
@pytest.mark.parametrize("arch", ARCHS)
def test_a_long_random_run_keeps_to_upstreams_memory(
    arch: str, options: dict[str, int], hybrid: Path, models: dict[str, Path]
) -> None:
    [found] = findings(hybrid, models[arch], "random", "k4v4", **options, tokens=effort.most(15000, 150000))
    assert found["tokens"] > 100 * 128
    assert found["refused"] > 30
    assert (found["rolled_back"] > 20) == ("rs" in options)
    assert found["checkpoints"] > 5
    assert found["reloads"] > 5
    assert found["nmse"] < BOUNDS["k4v4"]
    assert found["worst"] < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("more", [["-np", "3", "--no-kv-unified"], ["-np", "3", "--kv-unified"]], ids=" ".join)
def test_a_server_with_several_clients(more: list[str], tree: Path, models: dict[str, Path], tmp_path: Path) -> None:
    serve_several_clients(build("llama-server") / "llama-server", models["nemotron_h"], tmp_path, more)
