"""Packed caches of other sizes: states that move between them, and contexts that are too small for packing to pay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_latent
import tiny_models
from kv_helpers import compile_driver, findings

from qlutattn_patch.commands import main
from qlutattn_patch.workspace import Workspace

pytestmark = [pytest.mark.compiler, pytest.mark.core]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program that drives the cache through the C API."""
    assert main.run(["apply"]) == 0
    return compile_driver("kv_cache.cpp", Workspace.find().tree, tmp_path_factory.mktemp("kv cache"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_model(tmp_path_factory.mktemp("models") / "llama.gguf")


CONVERSIONS = {
    "the same settings": {},
    "no window, a small ubatch": {"to_ubatch": 64, "to_window": 0, "to_sink": 0},
    "a larger window": {"to_window": 512},
    "a smaller window and context": {"window": 512, "ctx": 4096, "to_window": 16, "to_ctx": 1024},
    "no tiles to tiles": {"window": 4000, "to_window": 64},
    "tiles to no tiles": {"to_window": 4000},
    "more sequences": {"to_seqs": 3},
    "more sequences, all in one": {"to_seqs": 3, "to_unified": 1},
    "fewer sequences, the others empty": {"seqs": 3, "to_seqs": 1},
}


def is_near(row: dict[str, Any]) -> bool:
    """Whether a converted state is about as near f16 as the caches that it comes from and goes to."""
    return bool(0 < row["nmse"] < 1.25 * max(row["before"], row["native"]) < 0.2)


@pytest.mark.parametrize("pair", ["k4v4", "k4", "v2"])
@pytest.mark.parametrize("name", CONVERSIONS)
def test_a_state_is_made_to_fit(name: str, pair: str, program: Path, llama: Path) -> None:
    rows = findings(program, llama, "convert", pair, **CONVERSIONS[name])
    assert [row["whole"] for row in rows] == [0, 1]
    assert all(is_near(row) for row in rows), rows


def test_a_state_with_positions_of_several_parts_is_made_to_fit(program: Path, tmp_path: Path) -> None:
    model = tiny_models.write_model(tmp_path / "m.gguf", tiny_models.Shape(arch="qwen3vl"))
    rows = findings(program, model, "convert", "k4v4", to_window=4000)
    assert all(is_near(row) for row in rows), rows


@pytest.mark.parametrize("options", [{}, {"to_window": 4000}, {"to_window": 0, "to_ubatch": 64}], ids=str)
def test_a_state_of_latent_rows_is_made_to_fit(options: dict[str, int], program: Path, tmp_path: Path) -> None:
    model = tiny_latent.write_latent(tmp_path / "m.gguf", tiny_latent.Latent("deepseek2", n_rope=64))
    rows = findings(program, model, "convert", "k4v4", **options)
    assert all(is_near(row) for row in rows), rows


@pytest.mark.parametrize("options", [{"to_window": 4000}, {"window": 4000, "to_window": 64}], ids=str)
def test_upstreams_cache_and_a_packed_one_refuse_each_others_states(
    options: dict[str, int], program: Path, tmp_path: Path
) -> None:
    model = tiny_models.write_model(tmp_path / "m.gguf", tiny_models.Shape(head_dim=80))
    rows = findings(program, model, "convert", "k4v4", **options)
    assert all("error loading state" in row["refused"] for row in rows), rows


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seqs": 4, "seq": 2, "to_seqs": 1}, "the state has a sequence 2, and this context room for 1: use -np 3"),
        (
            {"seqs": 4, "unified": 1, "seq": 2, "to_seqs": 1, "to_unified": 0},
            "has a sequence 2, and this context room for 1",
        ),
        ({"seqs": 4, "unified": 1, "seq": 2, "to_seqs": 2}, "the state has a sequence 2, and this context room for 2"),
        ({"seqs": 2, "unified": 1, "to_unified": 0}, "the state is of a KV cache that all sequences share"),
        ({"seqs": 2, "to_unified": 1}, "the state is of a KV cache with a part for each sequence"),
    ],
)
def test_whole_states_that_cannot_be_made_to_fit_are_refused(
    options: dict[str, int], says: str, program: Path, llama: Path
) -> None:
    sequence, whole = findings(program, llama, "convert", "k4v4", **options)
    assert is_near(sequence), sequence
    assert says in whole["refused"]


def test_a_state_of_more_tokens_is_refused(program: Path, llama: Path) -> None:
    for row in findings(program, llama, "convert", "k4v4", to_ctx=512):
        assert "more tokens than this context has room for, 512: use a larger -c" in row["refused"]


@pytest.mark.parametrize("pair", ["k4v4", "k1v1", "k4"])
@pytest.mark.parametrize("seqs", [1, 4, 32])
def test_a_packed_cache_is_never_larger_than_f16(seqs: int, pair: str, program: Path, llama: Path) -> None:
    only_f16 = []
    for ctx in (256, 1024, 1536, 2048, 4096):
        for unified in (0, 1):
            size = {"ctx": ctx, "seqs": seqs, "unified": unified, "window": 256, "sink": 128, "ubatch": 512}
            [found] = findings(program, llama, "memory", pair, **size)
            assert found["share"] <= 100, (size, found)
            assert (found["packed_bytes"] == 0) == (found["share"] == 100), (size, found)
            only_f16 += [ctx] * (found["packed_bytes"] == 0)
    assert {256, 1024} <= set(only_f16)
    assert 4096 not in only_f16 or pair == "k4" or seqs > 1
