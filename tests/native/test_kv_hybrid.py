"""The memory of hybrid models: a mixed KV cache beside upstream's recurrent memory, compared with upstream's own."""

from __future__ import annotations

from pathlib import Path

import effort
import pytest
import server_process
import tiny_hybrids
from kv_helpers import BOUNDS, build, cache_types, compile_driver, findings, serve_several_clients

pytestmark = [pytest.mark.compiler, pytest.mark.core]

ARCHS = tuple(tiny_hybrids.BLOCKS)
SHIFTED = ("lfm2", "nemotron_h")  # qwen35 has positions of several parts, which cannot be shifted


@pytest.fixture(scope="module")
def program(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What drives any cache."""
    return compile_driver("kv_cache.cpp", tree, tmp_path_factory.mktemp("kv cache"))


@pytest.fixture(scope="module")
def hybrid(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What drives the memory of hybrid models only."""
    return compile_driver("kv_hybrid.cpp", tree, tmp_path_factory.mktemp("kv hybrid"))


@pytest.fixture(scope="module")
def shift(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What moves tokens of any cache."""
    return compile_driver("kv_shift.cpp", tree, tmp_path_factory.mktemp("kv shift"))


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


@pytest.mark.parametrize(
    ("options", "worst"),
    [({"window": 100000, "seqs": 2}, 1e-4), ({}, 0.2), ({"seqs": 3, "unified": 1}, 0.2)],
    ids=["all in f16", "one sequence", "three in one cache"],
)
@pytest.mark.parametrize("arch", SHIFTED)
def test_tokens_move_as_in_upstreams_memory(
    arch: str, options: dict[str, int], worst: float, hybrid: Path, models: dict[str, Path]
) -> None:
    [found] = findings(hybrid, models[arch], "random", "k4v4", shift=1, rs=4, tokens=6000, **options)
    assert found["shifts"] > 4
    assert found["rolled_back"] > 4
    assert found["nmse"] < BOUNDS["k4v4"]
    assert found["worst"] < worst


@pytest.mark.parametrize("options", [{}, {"save": 1}, {"save": 1, "whole": 1, "rs": 4}], ids=str)
def test_a_context_is_shifted_again_and_again(options: dict[str, int], shift: Path, models: dict[str, Path]) -> None:
    rows = findings(shift, models["lfm2"], "context", "k4v4", **options)
    assert [row["round"] for row in rows] == [0, 1, 2]
    assert all(0 < row["moved"] < 1.3 * row["still"] for row in rows), rows


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
@pytest.mark.parametrize("arch", SHIFTED)
def test_a_server_writes_several_times_its_context(arch: str, tree: Path, models: dict[str, Path]) -> None:
    k, v = cache_types("k4v4")
    argv = ["-m", models[arch], "-c", "1024", "-np", "1", "-ctk", k, "-ctv", v, "--kv-window", "64", "--kv-sink", "16"]
    with server_process.start(
        build("llama-server") / "llama-server", *argv, "--threads", "1", "--context-shift"
    ) as ask:
        body = {"prompt": "The cache holds", "n_predict": 4096, "temperature": 0.8, "seed": 1, "ignore_eos": True}
        answer = ask("POST", "/completion", body)
        assert answer["tokens_predicted"] == 4096
        assert answer["truncated"]


@pytest.mark.slow
@pytest.mark.parametrize("more", [["-np", "3", "--no-kv-unified"], ["-np", "3", "--kv-unified"]], ids=" ".join)
def test_a_server_with_several_clients(more: list[str], tree: Path, models: dict[str, Path], tmp_path: Path) -> None:
    serve_several_clients(build("llama-server") / "llama-server", models["nemotron_h"], tmp_path, more)
