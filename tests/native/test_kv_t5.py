"""The mixed KV cache in the decoder of an encoder-decoder model (T5), whose heads add a bias to each score."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_t5
from kv_helpers import BOUNDS, compile_driver, findings, run

pytestmark = [pytest.mark.compiler, pytest.mark.core]


@pytest.fixture(scope="module")
def program(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program that drives the cache through the C API."""
    return compile_driver("kv_cache.cpp", tree, tmp_path_factory.mktemp("kv t5"))


@pytest.fixture(scope="module")
def shifter(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program that moves tokens."""
    return compile_driver("kv_shift.cpp", tree, tmp_path_factory.mktemp("kv t5 shift"))


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_t5.write_t5(tmp_path_factory.mktemp("models") / "t5.gguf")


@pytest.mark.parametrize("pair", BOUNDS)
def test_logits_are_near_those_of_f16(pair: str, program: Path, t5: Path) -> None:
    [found] = findings(program, t5, "logits", pair)
    assert found["nmse_blind"] > 0.05, "attention does not matter in this model"
    assert 0 < found["nmse_tail"] < BOUNDS[pair] * found["nmse_blind"]


@pytest.mark.parametrize("head_dim", [80, 128])
def test_other_heads_are_packed(head_dim: int, program: Path, tmp_path: Path) -> None:
    [found] = findings(program, tiny_t5.write_t5(tmp_path / "m.gguf", head_dim), "logits", "k4v4")
    assert 0 < found["nmse_tail"] < BOUNDS["k4v4"] * found["nmse_blind"]


def test_the_bias_of_tokens_in_f16_is_upstreams(program: Path, t5: Path) -> None:
    [found] = findings(program, t5, "logits", "k4v4", window=4096, ctx=16384)
    assert found["nmse"] < 1e-5


def test_tokens_that_are_packed_at_once_have_their_bias(program: Path, t5: Path) -> None:
    [found] = findings(program, t5, "logits", "k4v4", window=0, sink=0, batch=128)
    assert 0 < found["nmse_tail"] < 2 * BOUNDS["k4v4"] * found["nmse_blind"]


@pytest.mark.parametrize("options", [{}, {"seqs": 2, "unified": 1, "exact": 0}], ids=str)
def test_generation_goes_on_after_a_restore(options: dict[str, int], program: Path, t5: Path, tmp_path: Path) -> None:
    rows = findings(program, t5, "restore", "k4v4", **options, file=tmp_path / "session.bin")
    assert [row["whole"] for row in rows] == [0, 1]
    assert all(row["worst"] < 1e-3 for row in rows)


def test_sequences_do_not_leak(program: Path, t5: Path) -> None:
    findings(program, t5, "leak", "k4v4", seqs=2, unified=1)


def test_a_damaged_state_is_refused_and_changes_nothing(program: Path, t5: Path) -> None:
    [found] = findings(program, t5, "damage", "k4v4", times=40)
    assert found["refused"] > 200


@pytest.mark.parametrize("options", [{}, {"seqs": 3, "unified": 1}], ids=str)
def test_a_random_run_keeps_to_upstreams_cache(options: dict[str, int], program: Path, t5: Path) -> None:
    [found] = findings(program, t5, "random", "k4v4", **options, tokens=6000)
    assert found["removals"] > 20
    assert found["nmse"] < BOUNDS["k4v4"]
    assert found["worst"] < 0.2


def test_sequences_with_a_cache_each_are_refused_in_words(program: Path, t5: Path) -> None:
    done = run(program, t5, "refuse", "k4v4", seqs=2)
    assert done.returncode == 0, done.stderr
    assert "add --kv-unified (kv_unified = true), or use one sequence, -np 1" in done.stdout


@pytest.mark.parametrize("options", [{}, {"window": 0, "sink": 0}], ids=str)
def test_the_bias_follows_tokens_that_move(options: dict[str, int], shifter: Path, t5: Path) -> None:
    [reused] = findings(shifter, t5, "reuse", "k4v4", **options)
    assert 0 < reused["moved"] < 1.3 * reused["still"]
    rows = findings(shifter, t5, "context", "k4v4", save=1, **options)
    assert all(0 < row["moved"] < 1.3 * row["still"] for row in rows), rows
