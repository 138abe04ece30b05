"""Heads of every size in the mixed KV cache, of keys other than of values, padded and priced so; and MLA."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tiny_latent
import tiny_models
from kv_helpers import BOUNDS, compile_driver, findings, run
from tiny_latent import Latent

pytestmark = [pytest.mark.compiler, pytest.mark.core]

# channels of a head, heads of a layer: whole tiles or not, padded or not, the largest
SHAPES = [(40, 2), (64, 1), (64, 3), (80, 2), (96, 2), (112, 1), (192, 1), (320, 2), (512, 1), (576, 1), (640, 1)]


@pytest.fixture(scope="module")
def program(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program that drives the cache through the C API."""
    return compile_driver("kv_cache.cpp", tree, tmp_path_factory.mktemp("kv heads"))


def model_of(tmp_path: Path, head_dim: int, n_head_kv: int) -> Path:
    """A Llama-like model with such heads."""
    shape = tiny_models.Shape(head_dim=head_dim, n_head=2 * n_head_kv, n_head_kv=n_head_kv)
    return tiny_models.write_model(tmp_path / f"{head_dim}x{n_head_kv}.gguf", shape)


@pytest.mark.parametrize("pair", ["k4v4", "k2v2"])
@pytest.mark.parametrize(("head_dim", "n_head_kv"), SHAPES)
def test_logits_are_near_those_of_f16(head_dim: int, n_head_kv: int, pair: str, program: Path, tmp_path: Path) -> None:
    [found] = findings(program, model_of(tmp_path, head_dim, n_head_kv), "logits", pair)
    assert found["nmse_blind"] > 0.05, "attention does not matter in this model"
    assert 0 < found["nmse_tail"] < BOUNDS[pair] * found["nmse_blind"]


@pytest.mark.parametrize("pair", ["k4v4", "k4", "v4"])
@pytest.mark.parametrize("head_dim_v", [64, 80, 128])
def test_values_can_have_other_heads_than_keys(head_dim_v: int, pair: str, program: Path, tmp_path: Path) -> None:
    model = tiny_latent.write_latent(tmp_path / "m.gguf", Latent(head_dim_v=head_dim_v))
    # padded, and f16 on one side: a short context would be f16 as a whole
    [found] = findings(program, model, "logits", pair, ctx=16384)
    assert found["nmse_blind"] > 0.05
    assert 0 < found["nmse_tail"] < BOUNDS[pair] * found["nmse_blind"]


# one latent row per token: that of DeepSeek, and one that is padded
MLA = [Latent("deepseek2", n_latent=512, n_rope=64), Latent("deepseek2", n_latent=128, n_rope=32)]


@pytest.mark.parametrize("pair", ["k4v4", "k2v2", "k1v1"])
@pytest.mark.parametrize("shape", MLA, ids=lambda shape: shape.n_latent)
def test_logits_of_latent_attention_are_near_those_of_f16(
    shape: Latent, pair: str, program: Path, tmp_path: Path
) -> None:
    [found] = findings(program, tiny_latent.write_latent(tmp_path / "m.gguf", shape), "logits", pair)
    assert found["nmse_blind"] > 0.05
    assert 0 < found["nmse_tail"] < BOUNDS[pair] * found["nmse_blind"]


@pytest.mark.parametrize("shape", MLA, ids=lambda shape: shape.n_latent)
def test_latent_rows_survive_saving_and_other_sequences(shape: Latent, program: Path, tmp_path: Path) -> None:
    model = tiny_latent.write_latent(tmp_path / "m.gguf", shape)
    for options in ({}, {"seqs": 2}):
        rows = findings(program, model, "restore", "k4v4", **options)
        assert [row["worst"] for row in rows] == [0, 0]
    findings(program, model, "leak", "k4v4", seqs=2)
    [found] = findings(program, model, "damage", "k4v4", times=40)
    assert found["refused"] > 200


@pytest.mark.nightly
@pytest.mark.parametrize("options", [{}, {"seqs": 3}, {"seqs": 3, "unified": 1}], ids=str)
def test_a_long_random_run_of_latent_attention(options: dict[str, int], program: Path, tmp_path: Path) -> None:
    model = tiny_latent.write_latent(tmp_path / "m.gguf", MLA[1])
    [found] = findings(program, model, "random", "k4v4", **options, tokens=15000)
    assert found["nmse"] < BOUNDS["k4v4"]
    assert found["worst"] < 0.2


def test_latent_rows_are_kept_once(program: Path, tmp_path: Path) -> None:
    model = tiny_latent.write_latent(tmp_path / "m.gguf", MLA[0])
    [found] = findings(program, model, "memory", "k4v4", ctx=32768, ubatch=512, window=256, sink=128)
    assert found["full_bytes"] == 2 * 2 * 576 * 32768
    # 640 channels of K, of which 64 are padding; V is read from them
    assert found["packed_bytes"] == 2 * 640 * 32768 * 4.25 / 8
    assert found["f16_bytes"] == 2 * 2 * 576 * (256 + 128 + 128 + 512)


@pytest.mark.parametrize(("head_dim", "n_head_kv"), [(64, 3), (80, 2), (192, 1)])
def test_padded_rows_survive_saving_and_other_sequences(
    head_dim: int, n_head_kv: int, program: Path, tmp_path: Path
) -> None:
    model = model_of(tmp_path, head_dim, n_head_kv)
    rows = findings(program, model, "restore", "k4v4", seqs=2)
    assert [row["worst"] for row in rows] == [0, 0]
    findings(program, model, "leak", "k4v4", seqs=2)
    [found] = findings(program, model, "damage", "k4v4", times=40)
    assert found["refused"] > 200


@pytest.mark.nightly
@pytest.mark.parametrize(("head_dim", "n_head_kv"), [(64, 3), (80, 2), (192, 1)])
def test_a_long_random_run_keeps_to_upstreams_cache(
    head_dim: int, n_head_kv: int, program: Path, tmp_path: Path
) -> None:
    model = model_of(tmp_path, head_dim, n_head_kv)
    [found] = findings(program, model, "random", "k4v4", seqs=2, tokens=15000)
    assert found["nmse"] < BOUNDS["k4v4"]
    assert found["worst"] < 0.2


# the share of the packed part alone: 128 channels instead of 80, half a tile more for three heads of 64, nothing
@pytest.mark.parametrize(
    ("head_dim", "n_head_kv", "padding"), [(80, 4, 128 / 80), (64, 3, 256 / 192), (192, 2, 1.0)], ids=str
)
def test_padding_is_in_the_printed_size(
    head_dim: int, n_head_kv: int, padding: float, program: Path, tmp_path: Path
) -> None:
    [found] = findings(program, model_of(tmp_path, head_dim, n_head_kv), "memory", "k4v4", ctx=32768)
    assert found["full_bytes"] == 2 * 2 * 2 * head_dim * n_head_kv * 32768
    assert found["packed_bytes"] == pytest.approx(found["full_bytes"] * padding * 4.25 / 16)


def refusal(program: Path, model: Path, pair: str) -> str:
    """Why a context is refused."""
    done = run(program, model, "refuse", pair)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_would_not_be_smaller_is_refused_with_the_figure(program: Path, tmp_path: Path) -> None:
    says = refusal(program, model_of(tmp_path, 80, 2), "k4")
    figures = re.search(r"a token would take (\d+) bytes instead of (\d+)", says)
    assert figures, says
    # two layers of two heads: 128 channels of K with 4.25 bits, as many of V in f16
    assert [int(one) for one in figures.groups()] == [4 * (68 + 256), 4 * 2 * 160]


def test_packed_values_of_latent_keys_in_f16_are_refused_with_the_figure(program: Path, tmp_path: Path) -> None:
    says = refusal(program, tiny_latent.write_latent(tmp_path / "m.gguf", MLA[0]), "v4")
    assert "a token would take 2304 bytes instead of 2304, since this model's values are part of its keys" in says


def test_larger_heads_than_the_kernels_take_are_refused(program: Path, tmp_path: Path) -> None:
    says = refusal(program, model_of(tmp_path, 704, 1), "k4v4")
    assert "heads of at most 640 channels: layer 0 has 704 for K and 704 for V" in says


@pytest.mark.parametrize("pair", ["k4v4", "k2v2"])
@pytest.mark.parametrize("head_dim", [40, 80, 96, 128])
def test_no_cache_is_larger_than_f16(head_dim: int, pair: str, program: Path, tmp_path: Path) -> None:
    rows = findings(program, model_of(tmp_path, head_dim, 2), "sizes", pair, window=256, sink=128)
    assert all(row["share"] <= 100 for row in rows), rows
    assert rows[-1]["share"] < 80
    # upstream's cache is taken where tiles would not pay, and padded f16 cells would not either
    assert [row["ctx"] for row in rows if row["upstream"]] == (
        [] if head_dim == 128 else [row["ctx"] for row in rows if row["share"] == 100]
    )


def test_padded_heads_in_a_short_context_are_as_in_upstreams_cache(program: Path, tmp_path: Path) -> None:
    [found] = findings(program, model_of(tmp_path, 80, 2), "logits", "k4v4", ctx=1024, window=256, sink=128)
    assert found["nmse"] == 0
