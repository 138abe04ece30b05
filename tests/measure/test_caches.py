"""The notation of caches."""

from __future__ import annotations

import pytest
from helpers import ROOT

from qlutattn_patch.measure.caches import UPSTREAM, check_timed, parse
from qlutattn_patch.system.errors import ExpectedError, UsageError
from qlutattn_patch.templates.formats import load_formats

TYPES = load_formats(ROOT / "templates" / "formats.toml").types


def test_a_stock_type_is_for_keys_and_values() -> None:
    (cache,) = parse("q5_0", TYPES, window=512, sink=128)
    assert cache.arguments == ["-ctk", "q5_0", "-ctv", "q5_0"]
    assert cache.bpw == 5.5


@pytest.mark.parametrize(
    ("text", "k", "v", "bpw"),
    [
        ("K4V4", "qlutattn_k4_128x128", "qlutattn_v4_128x128", 4.25),
        ("K4V2", "qlutattn_k4_128x128", "qlutattn_v2_128x128", 3.25),
        ("K1V1", "qlutattn_k1_128x128", "qlutattn_v1_128x128", 1.25),
        ("K2", "qlutattn_k2_128x128", "f16", (2.25 + 16) / 2),
        ("V4", "f16", "qlutattn_v4_128x128", (16 + 4.25) / 2),
    ],
)
def test_packed_types(text: str, k: str, v: str, bpw: float) -> None:
    (cache,) = parse(text, TYPES)
    assert (cache.type_k, cache.type_v, cache.bpw) == (k, v, bpw)
    assert cache.arguments == ["-ctk", k, "-ctv", v]


def test_a_cache_states_its_window_and_sink_or_takes_those_of_all() -> None:
    caches = parse("K4V4, K4V4+w0,K4V4+s256,K4V4+w64+s0,K4V4+w0", TYPES, window=512)
    assert [cache.name for cache in caches] == ["K4V4", "K4V4+w0", "K4V4+s256", "K4V4+w64+s0"]
    assert [(cache.window, cache.sink) for cache in caches] == [(512, None), (0, None), (512, 256), (64, 0)]
    assert caches[3].arguments[4:] == ["--kv-window", "64", "--kv-sink", "0"]
    assert caches[0].arguments[4:] == ["--kv-window", "512"]


@pytest.mark.parametrize(
    ("name", "smoothing"), [("f16+int8", 1), ("f16+int8@0", 0), ("K4V4+w64+int8@.5", 0.5), ("K4+int8@1", 1)]
)
def test_8_bits_over_f16(name: str, smoothing: float) -> None:
    (cache,) = parse(name, TYPES)
    assert (cache.name, cache.smoothing) == (name, smoothing)
    assert cache.arguments[-3:] == ["--attn-int8", "--attn-int8-smoothing", f"{smoothing:g}"]
    (plain,) = parse(name.partition("+int8")[0], TYPES)
    assert cache.arguments[:-3] == plain.arguments


@pytest.mark.parametrize(
    "name",
    [
        "q8_0+int8",
        "f16+int8@2",
        "f16+int8+int8",
        "+int8",
        "K3V4",
        "k4v4",
        "V4K4",
        "q4_0+w128",
        "+w128",
        "K4V4+s1+w1",
        "K4V4+w-1",
        "f17",
    ],
)
def test_what_is_no_cache_is_named(name: str) -> None:
    with pytest.raises(UsageError) as failure:
        parse(f"f16,{name}", TYPES)
    assert failure.value.cause.startswith(f"--types: '{name}' is not a cache; names are such as f32, f16,")


@pytest.mark.parametrize(
    ("name", "meant"), [("q80", "q8_0"), ("k4v4", "K4V4"), ("k4v2+w512", "K4V2+w512"), ("f17", "f16")]
)
def test_the_nearest_cache_is_suggested(name: str, meant: str) -> None:
    with pytest.raises(UsageError) as failure:
        parse(name, TYPES)
    assert failure.value.hint == f"did you mean {meant}?"


@pytest.mark.parametrize(
    "name",
    [
        "f16",
        "q8_0",
        "q4_0",
        "K4V2",
        "K4V4+w512",
        "w512",
        "K4V4+q3",
        "K8V8+w128+q15",
        "f16+int8",
        "w512+int8",
        "K4V4+w512+int8",
    ],
)
def test_what_bench_attn_times(name: str) -> None:
    check_timed(f"f16, {name}", TYPES)


@pytest.mark.parametrize(
    "name",
    [
        "K3V4",
        "K4",
        "k4v4",
        "K4V4+w100",
        "w512+q3",
        "+w512",
        "q5_0",
        "K4V4+s2",
        "K4V4w512",
        "K4V4+int8",
        "q8_0+int8",
        "",
    ],
)
def test_what_bench_attn_does_not_time(name: str) -> None:
    with pytest.raises(UsageError, match="is not a cache"):
        check_timed(f"f16,{name}", TYPES)


@pytest.mark.parametrize("text", ["", ",", " , "])
def test_an_empty_list_is_refused(text: str) -> None:
    with pytest.raises(ExpectedError, match="names no cache"):
        parse(text, TYPES)


def test_the_bits_of_stock_types_are_those_that_gguf_knows() -> None:
    import gguf

    for name, bits in UPSTREAM.items():
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name.upper()]]
        assert bits == size * 8 / block
