"""Tokens of the mixed KV cache that move to other positions: as near to f16 as those that stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import server_process
import tiny_models
from kv_helpers import BOUNDS, build, cache_types, compile_driver, findings

pytestmark = [pytest.mark.compiler, pytest.mark.core]

MODELS = (("llama", 128), ("qwen3", 64), ("gemma3", 128))
PAIRS = ("k4v4", "k2v2", "k4", "v4")


@pytest.fixture(scope="module")
def program(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program that moves tokens."""
    return compile_driver("kv_shift.cpp", tree, tmp_path_factory.mktemp("kv shift"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        (arch, size): tiny_models.write_model(
            folder / f"{arch}-{size}.gguf", tiny_models.Shape(arch=arch, head_dim=size)
        )
        for arch, size in MODELS
    }


@pytest.fixture(scope="module")
def llama(models: dict[tuple[str, int], Path]) -> Path:
    return models["llama", 128]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(("arch", "size"), MODELS)
def test_a_context_is_shifted_again_and_again(
    arch: str, size: int, pair: str, program: Path, models: dict[tuple[str, int], Path]
) -> None:
    rows = findings(program, models[arch, size], "context", pair)
    assert [row["round"] for row in rows] == [0, 1, 2]
    assert all(0 < row["moved"] < 1.3 * row["still"] for row in rows), rows


@pytest.mark.parametrize("options", [{}, {"whole": 1}, {"seqs": 2, "unified": 1}], ids=str)
def test_a_state_saved_between_shifts_goes_on(options: dict[str, int], program: Path, llama: Path) -> None:
    rows = findings(program, llama, "context", "k4v4", save=1, **options)
    assert all(row["moved"] < 1.3 * row["still"] for row in rows), rows


@pytest.mark.parametrize("gap", [40, 128, 150])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_prompt_with_holes_is_used_again(pair: str, gap: int, program: Path, llama: Path) -> None:
    [found] = findings(program, llama, "reuse", pair, gap=gap)
    assert 0 < found["moved"] < 1.3 * found["still"]


@pytest.mark.parametrize("pair", PAIRS)
def test_positions_are_divided(pair: str, program: Path, llama: Path) -> None:
    # the keys of divided positions are quantised twice: up to twice the error
    [found] = findings(program, llama, "divide", pair)
    assert 0 < found["moved"] < 2.5 * found["still"]


@pytest.mark.parametrize("pair", PAIRS)
def test_there_may_be_more_shifts_than_a_stream_can_have(pair: str, program: Path, llama: Path) -> None:
    [found] = findings(program, llama, "many", pair)
    assert 0 < found["moved"] < 2 * BOUNDS[pair]


@pytest.fixture(scope="module")
def server(tree: Path) -> Path:
    return build("llama-server") / "llama-server"


def arguments(model: Path, pair: str) -> list[str | Path]:
    k, v = cache_types(pair)
    return ["-m", model, "-ctk", k, "-ctv", v, "--kv-window", "64", "--kv-sink", "16", "--threads", "1", "-np", "1"]


@pytest.mark.slow
def test_a_server_writes_ten_times_its_context(server: Path, llama: Path) -> None:
    with server_process.start(server, *arguments(llama, "k4v4"), "-c", "1024", "--context-shift") as ask:
        body = {"prompt": "The cache holds", "n_predict": 10240, "temperature": 0.8, "seed": 1, "ignore_eos": True}
        answer = ask("POST", "/completion", body)
        assert answer["tokens_predicted"] == 10240
        assert answer["truncated"]


@pytest.mark.slow
def test_a_prompt_whose_middle_is_cut_hits_the_cache_as_with_f16(server: Path, llama: Path) -> None:
    parts = [" ".join(f"{word}{i}" for i in range(120)) for word in ("tile", "token", "window")]

    def hits(pair: str) -> list[int]:
        with server_process.start(server, *arguments(llama, pair), "-c", "8192", "--cache-reuse", "64") as ask:

            def complete(prompt: str) -> Any:
                body = {"prompt": prompt, "n_predict": 8, "temperature": 0, "cache_prompt": True}
                return ask("POST", "/completion", body)["timings"]

            prompts = (" ".join(parts), f"{parts[0]} {parts[2]}", " ".join(parts), parts[2])
            return [complete(prompt)["cache_n"] for prompt in prompts]

    with_f16 = hits("f16")
    assert with_f16[1] > 300
    assert hits("k4v4") == with_f16
