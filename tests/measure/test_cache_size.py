"""The arithmetic of cache sizes, by hand; tests/native/test_cache_sizes.py compares it with llama.cpp."""

from __future__ import annotations

import pytest
from helpers import ROOT

from qlutattn_patch.measure.attention_layers import Model, read_model
from qlutattn_patch.measure.cache_size import Context, size_of
from qlutattn_patch.measure.caches import parse
from qlutattn_patch.measure.shapes import NAMES, shape
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.templates.formats import load_formats

TYPES = load_formats(ROOT / "templates" / "formats.toml").types
ONE = Context(32768, 1, False, 512)
TOKEN = 32 * 2 * 8 * 128  # values of a token of llama-3.1-8b


def model(name: str) -> Model:
    return read_model(shape(name), name)


def total(name: str, cache: str, context: Context = ONE) -> int:
    (chosen,) = parse(cache, TYPES)
    return size_of(model(name), chosen, context, TYPES).total


def test_a_cache_of_one_type() -> None:
    assert total("llama-3.1-8b", "f16") == 32768 * TOKEN * 2
    assert total("llama-3.1-8b", "q8_0") == 32768 * TOKEN * 34 // 32


def test_a_packed_cache_has_f16_cells_and_tiles() -> None:
    # sinks, window, a tile that is being filled, the ubatch; then all tokens in 4.25 bits
    cells = 128 + 256 + 128 + 512
    assert total("llama-3.1-8b", "K4V4") == cells * TOKEN * 2 + 32768 * TOKEN * 17 // 32
    assert total("llama-3.1-8b", "K4V4+w0+s0") == (128 + 512) * TOKEN * 2 + 32768 * TOKEN * 17 // 32


def test_sequences_share_tokens_but_not_sinks_and_windows() -> None:
    packed = 32768 * TOKEN * 17 // 32
    assert total("llama-3.1-8b", "K4V4", Context(32768, 4, True, 512)) == (4 * 512 + 512) * TOKEN * 2 + packed
    assert total("llama-3.1-8b", "K4V4", Context(32768, 4, False, 512)) == 4 * 1024 * TOKEN * 2 + packed


def test_a_context_is_rounded_up() -> None:
    assert Context(1000, 1, False, 512).per_sequence == 1024
    assert Context(1000, 3, False, 512).per_sequence == 512
    assert total("llama-3.1-8b", "f16", Context(1000, 3, False, 512)) == 3 * 512 * TOKEN * 2


def test_a_short_context_stays_f16() -> None:
    short = Context(1024, 1, False, 512)
    (cache,) = parse("K4V4", TYPES)
    size = size_of(model("llama-3.1-8b"), cache, short, TYPES)
    assert size.total == total("llama-3.1-8b", "f16", short)
    assert (size.tiles, size.packed) == (0, 0)
    assert "all tokens stay in f16" in (size.note or "")


def test_layers_with_a_window_stay_f16_and_short() -> None:
    found = model("gpt-oss-20b")
    assert sum(layer.windowed for layer in found.layers) == 12
    of_a_layer = 2 * 8 * 64 * 2
    assert total("gpt-oss-20b", "f16") == 12 * (32768 + 768) * of_a_layer
    assert total("gpt-oss-20b", "K4V4") == 12 * (768 + 1024) * of_a_layer + 12 * 32768 * of_a_layer * 17 // 64


def test_latent_rows_are_there_once() -> None:
    assert total("deepseek-v3", "f16") == 61 * 576 * 2 * 32768
    assert total("deepseek-v3", "K4V4") == 61 * (1024 * 576 * 2 + 32768 * 640 * 17 // 32)
    (keys,) = parse("V4", TYPES)
    assert "a token would take" in (size_of(model("deepseek-v3"), keys, ONE, TYPES).refused or "")


def test_only_some_layers_of_hybrid_models_have_keys() -> None:
    assert len(model("qwen3-next-80b-a3b").layers) == 12


@pytest.mark.parametrize("name", NAMES)
def test_every_shape_is_smaller_when_packed(name: str) -> None:
    assert total(name, "K4V4") < total(name, "K8V8") < total(name, "f16")


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ({"general.architecture": "bert"}, "keeps no keys and values"),
        ({"general.architecture": "deepseek32"}, "only llama.cpp knows"),
        ({"general.architecture": "clip"}, "no language model"),
        ({}, "no language model"),
        ({"general.architecture": "llama"}, "has no llama.block_count"),
        ({"general.architecture": "llama", "llama.block_count": 2**31}, "more than llama.cpp takes"),
        ({"general.architecture": "llama", "llama.block_count": 2, "llama.embedding_length": 64}, "no layer with keys"),
    ],
)
def test_models_that_have_no_such_cache_are_refused(header: dict[str, str | int], why: str) -> None:
    with pytest.raises(ExpectedError, match=why):
        read_model(header, "M.gguf")  # type: ignore[arg-type]


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(ExpectedError, match="There is no shape 'gpt-9'"):
        shape("gpt-9")
