"""Attention in 8 bits over f16 caches, as contexts get it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import kv_helpers
import pytest
from tiny_models import Shape, write_model

pytestmark = pytest.mark.compiler


@pytest.fixture(scope="module")
def program(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kv_helpers.compile_driver("attn_int8.cpp", tree, tmp_path_factory.mktemp("attn-int8"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "m.gguf", Shape())


def said(
    program: Path, model: Path, types: str = "f16 f16", flash_attn: int = -1, env: dict[str, str] | None = None
) -> str:
    argv = [str(program), str(model), *types.split(), str(flash_attn)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("types", ["f16 f16", "qlutattn_k4_128x128 qlutattn_v4_128x128"])
@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_prompts_differ_by_what_8_bits_lose_and_short_batches_do_not(
    arch: str, types: str, program: Path, tmp_path: Path
) -> None:
    path = write_model(tmp_path / "m.gguf", Shape.of(arch, 128))
    lines = said(program, path, types).splitlines()
    assert "in 8 bits in 2 of 2 layers, smoothing 1" in lines[0]
    of_prompt, of_short = (float(word) for word in lines[-2].split())
    assert 1e-7 < of_prompt < 1e-3
    assert of_short < 2e-5  # upstream sums values of few queries in f16, the op does not
    if arch == "llama" and "qlutattn" in types:  # no layer has upstream's cache
        assert of_short == 0
    assert float(lines[-1]) == 0


@pytest.mark.parametrize(
    ("types", "flash_attn", "why"),
    [
        ("f16 f16", 0, "needs flash attention: leave out -fa off"),
        ("q8_0 q8_0", 1, "not of q8_0 for K and q8_0 for V: leave out -ctk and -ctv, or --attn-int8"),
        ("f16 q8_0", 1, "not of f16 for K and q8_0 for V"),
    ],
)
def test_what_cannot_be_done_is_refused(types: str, flash_attn: int, why: str, program: Path, model: Path) -> None:
    (line,) = said(program, model, types, flash_attn, {"LLAMA_ARG_ATTN_INT8": "on"}).splitlines()
    assert line.startswith("refused: ")
    assert why in line


def test_heads_that_do_not_fit_are_refused(program: Path, tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", Shape.of("llama", 80))
    (line,) = said(program, path, env={"LLAMA_ARG_ATTN_INT8": "1"}).splitlines()
    assert "heads of a multiple of 64 channels, up to 640, and layer 0 has 80 for K and 80 for V" in line


def test_the_environment_sets_it(program: Path, model: Path) -> None:
    env = {"LLAMA_ARG_ATTN_INT8": "enabled", "LLAMA_ARG_ATTN_INT8_SMOOTHING": "0.25"}
    assert "smoothing 0.25" in said(program, model, env=env)
    assert "LLAMA_ARG_ATTN_INT8_SMOOTHING in the environment is '2': set it to a number from 0 to 1" in said(
        program, model, env={**env, "LLAMA_ARG_ATTN_INT8_SMOOTHING": "2"}
    )
    assert "LLAMA_ARG_ATTN_INT8 in the environment is 'yes': set it to on or off" in said(
        program, model, env={"LLAMA_ARG_ATTN_INT8": "yes"}
    )
