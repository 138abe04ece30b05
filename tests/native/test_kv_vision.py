"""Images that a vision encoder (libmtmd) puts into the mixed KV cache, through the C API and llama-server."""

from __future__ import annotations

import base64
import random
from pathlib import Path

import pytest
import server_process
import tiny_models
import tiny_vision
from kv_helpers import BOUNDS, build, cache_types, compile_native, findings

pytestmark = [pytest.mark.compiler, pytest.mark.slow]  # builds libmtmd

SHAPE = tiny_models.Shape(arch="qwen3vl")


@pytest.fixture(scope="module")
def program(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program that shows images to a model."""
    binaries = build("mtmd")
    includes = [f"-I{tree / folder}" for folder in ("tools/mtmd", "include", "ggml/include")]
    libraries = [f"-L{binaries}", f"-Wl,-rpath,{binaries}", "-lmtmd", "-lllama", "-lggml", "-lggml-base"]
    return compile_native("kv_vision.cpp", tmp_path_factory.mktemp("kv vision"), *includes, *libraries)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_model(tmp_path_factory.mktemp("models") / "text.gguf", SHAPE)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vision.write_vision(tmp_path_factory.mktemp("models") / "mmproj.gguf", SHAPE.n_embd)


# Beside other images: they change less than half of the context does, which 8 bits are near enough to show.
IMAGE_BOUNDS = BOUNDS | {"k8v8": 0.001}


@pytest.mark.parametrize("pair", BOUNDS)
def test_text_beside_images_is_near_that_of_f16(pair: str, program: Path, model: Path, encoder: Path) -> None:
    first, *rows = findings(program, model, "logits", pair, mmproj=encoder)
    assert first["nmse"] < BOUNDS[pair]
    assert len(rows) == 2
    for row in rows:
        assert row["image_tokens"] == 2 * 24 * 20
        assert row["nmse_other"] > 0.03, "images do not matter to this model"
        assert 0 < row["nmse"] < IMAGE_BOUNDS[pair] * row["nmse_other"]


@pytest.mark.parametrize("pair", ["k4v4", "k2", "v4"])
def test_a_state_saved_in_the_middle_of_an_image_goes_on(pair: str, program: Path, model: Path, encoder: Path) -> None:
    rows = findings(program, model, "restore", pair, mmproj=encoder)
    assert [(row["parts"], row["whole"]) for row in rows] == [(n, whole) for n in (1, 2, 3, 4) for whole in (0, 1)]
    assert all(row["same"] for row in rows), rows


def picture(seed: int) -> str:
    """An image of noise, as a request has it."""
    width, height = 24 * tiny_vision.PIXELS, 20 * tiny_vision.PIXELS
    pixels = random.Random(seed).randbytes(3 * width * height)
    return base64.b64encode(b"P6 %d %d 255\n" % (width, height) + pixels).decode()


@pytest.mark.parametrize("more", [["-np", "1"], ["-np", "2", "--kv-unified"]], ids=" ".join)
def test_a_server_is_shown_images(more: list[str], tree: Path, model: Path, encoder: Path) -> None:
    server = build("llama-server") / "llama-server"
    k, v = cache_types("k4v4")
    argv = ["-m", model, "--mmproj", encoder, "-c", "4096", "-ctk", k, "-ctv", v, "--kv-window", "64", "--kv-sink", "4"]
    with server_process.start(server, *argv, "--threads", "1", "--no-warmup", *more) as ask:
        marker = ask("GET", "/props")["media_marker"]

        def say(*pictures: str, cached: bool = False) -> list[int]:
            text = "The cache holds " + " and ".join(marker for _ in pictures) + " of every token."
            prompt = {"prompt_string": text, "multimodal_data": pictures}
            body = {"prompt": prompt, "n_predict": 40, "temperature": 0, "ignore_eos": True, "return_tokens": True}
            answer = ask("POST", "/completion", {**body, "id_slot": 0, "cache_prompt": cached})
            assert answer["tokens_predicted"] == 40
            assert (answer["timings"]["cache_n"] > 900) == cached
            return list(answer["tokens"])

        one, two = picture(1), picture(2)
        first = say(one, two)
        assert say(one, two) == first
        assert say(two, one) != first
        assert say(one, two) == first
        say(one, two, cached=True)
