"""The packer against a slow one that does a single lane with binary32 scalars, and its quality."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from qlutattn_patch.reference.quantise import RMS_TO_SCALE, heads, pack, quantise, unpack
from qlutattn_patch.reference.tile import LEVELS, Kind

f32 = np.float32


def tree(values: list[np.float32]) -> np.float32:
    s = list(values)
    for w in (64, 32, 16, 8, 4, 2, 1):
        for i in range(w):
            s[i] = s[i] + s[i + w]
    return s[0]


def choose(r: list[np.float32], s: np.float32, bits: int) -> list[int]:
    level = LEVELS[bits]
    middles = [f32((level[k] + level[k + 1]) / 2) for k in range(len(level) - 1)]
    factor = f32(64) / s
    return [sum(bool(middle < x * factor) for middle in middles) for x in r]


def slow(lane: np.ndarray, bits: int) -> tuple[list[int], int, int]:
    """Codes, and the bits of scale and offset, step by step as the specification numbers them."""
    x = [f32(value) for value in lane]
    if any(not np.isfinite(value) or abs(value) > 65504 for value in x):
        return [0] * 128, 0x7E00, 0
    offset = np.float16(tree(x) * f32(1 / 128))
    r = [value - f32(offset) for value in x]
    s = RMS_TO_SCALE[bits] * np.sqrt(tree([value * value for value in r]) * f32(1 / 128))
    offset_bits = int(offset.view(np.uint16))
    if s == 0:
        return [0] * 128, 0, offset_bits
    level = [f32(LEVELS[bits][code]) for code in choose(r, s, bits)]
    products = [a * b for a, b in zip(r, level, strict=True)]
    fitted = (f32(64) * tree(products)) / tree([value * value for value in level])
    scale = np.float16(min(fitted, f32(65504)))
    if scale == 0:
        return [0] * 128, 0, offset_bits
    return choose(r, f32(scale), bits), int(scale.view(np.uint16)), offset_bits


def lanes(rng: np.random.Generator) -> np.ndarray:
    sizes = (1e-45, 1e-40, 1e-20, 1e-9, 3e-8, 6e-8, 1e-6, 1e-3, 1.0, 100.0, 6e4)
    some = [size * rng.standard_normal(128) for size in sizes]
    some += [size * (rng.standard_normal(128) + 3) for size in sizes[2:-1]]
    some += [rng.standard_cauchy(128), np.clip(1e5 * rng.standard_normal(128), -65504, 65504)]
    some += [np.full(128, 3e-8), np.full(128, 65504.0), np.where(np.arange(128) == 9, 65504.0, -65504.0)]
    some += [np.where(np.arange(128) == 77, bad, 1.0) for bad in (np.nan, np.inf, -np.inf, 65504.01, 65505.0, -7e4)]
    some += [np.zeros(128), -np.zeros(128), np.where(np.arange(128) == 127, 1.0, 0.0)]
    return np.stack(some).astype(np.float32)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_every_lane_is_as_the_slow_packer_has_it(bits: int, half: bool) -> None:
    rng = np.random.default_rng(bits)
    with np.errstate(over="ignore"):
        data = np.concatenate([lanes(rng) for _ in range(2)]).astype(np.float16 if half else np.float32)
    tiles = quantise(data, bits)
    for i, lane in enumerate(data):
        codes, scale, offset = slow(lane, bits)
        assert tiles.codes[i].tolist() == codes, i
        assert (tiles.scale[i].view(np.uint16), tiles.offset[i].view(np.uint16)) == (scale, offset), i


@pytest.mark.parametrize(("bits", "bound"), [(1, 0.363), (2, 0.1175), (4, 0.0095)])
def test_gaussian_error_is_that_of_lloyd_max(bits: int, bound: float) -> None:
    x = np.random.default_rng(1).standard_normal((4096, 128)).astype(np.float32)
    error = np.square(quantise(x, bits).values() - x).mean()
    assert 0.9 * bound < error < 1.005 * bound


@pytest.mark.parametrize(("side", "bits"), list(itertools.product("kv", (1, 2, 4))))
@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_values_come_back_where_they_were(side: str, bits: int, head_dim: int) -> None:
    # Values that the codes can hold exactly, different for each batch, head, token and channel.
    batch, n_heads, tokens = 2, 256 // head_dim * 2, 256
    rng = np.random.default_rng(3)
    levels = np.asarray(LEVELS[bits]) / 64
    tiled = np.stack([rng.permutation(np.repeat(levels, 128 // len(levels))) for _ in range(batch * 4 * 2 * 128)])
    tiled = tiled.reshape(batch, 4, 2, 128, 128)
    kind = Kind(side, bits)
    source = (tiled if side == "k" else tiled.swapaxes(-1, -2)).reshape(batch, 4, tokens, 128).astype(np.float16)
    found = heads(unpack(pack(source, kind), kind, batch, 4).values(), side, n_heads)
    assert found.shape == (batch, n_heads, tokens, head_dim)
    for _ in range(200):
        b, h, t, d = (int(rng.integers(n)) for n in found.shape)
        element = h * head_dim + d
        original = float(source[b, element // 128, t, element % 128])
        if bits == 4:  # uniform data, whose fitted scale is not 1
            assert abs(found[b, h, t, d] - original) < 0.3
        else:
            assert found[b, h, t, d] == original


def test_any_strides_give_the_same_bytes() -> None:
    rng = np.random.default_rng(4)
    source = rng.standard_normal((2, 3, 128, 128)).astype(np.float16)
    strided = np.zeros((2, 128, 6, 256), np.float16).transpose(0, 2, 1, 3)[:, ::2, :, ::2]
    strided[...] = source
    for kind in (Kind("k", 2), Kind("v", 4)):
        np.testing.assert_array_equal(pack(source, kind), pack(strided, kind))


def test_parts_of_tiles_are_refused() -> None:
    with pytest.raises(ValueError, match="no whole tiles"):
        pack(np.zeros((1, 1, 127, 128), np.float16), Kind("k", 2))
