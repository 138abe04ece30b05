"""The packer against a slow one that does a single lane with binary32 scalars, and its quality."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from qlutattn_patch.proof.reference.quantise import heads, pack, quantise, unpack
from qlutattn_patch.proof.reference.tile import CODES, Code, Kind

f32 = np.float32
OTHERS = (
    Code((-96, -32, 32, 96), 0.98, "dot", has_offset=False),
    Code((-127, 127), 0.45, "lookup"),
    Code((-90, -30, 30, 90), 2.0, "lookup", has_offset=False),
)


def tree(values: list[np.float32]) -> np.float32:
    s = list(values)
    for w in (64, 32, 16, 8, 4, 2, 1):
        for i in range(w):
            s[i] = s[i] + s[i + w]
    return s[0]


def choose(u: list[int], code: Code) -> list[int]:
    level = code.levels
    middles = [(level[k] + level[k + 1]) / 2 for k in range(len(level) - 1)]
    thresholds = [math.copysign(math.ceil(abs(middle)), middle) for middle in middles]
    return [sum(threshold <= max(-128, min(127, one)) for threshold in thresholds) for one in u]


def rint(value: np.float32) -> int:
    """The nearest integer of a binary32 number, which is exact in Python's round."""
    return round(float(value))


def slow(lane: np.ndarray, code: Code) -> tuple[list[int], int, int]:
    """Codes, and the bits of scale and offset, step by step as the specification numbers them."""
    x = [f32(value) for value in lane]
    if any(not np.isfinite(value) or abs(value) > 65504 for value in x):
        return [0] * 128, 0x7E00, 0
    offset = np.float16(tree(x) * f32(1 / 128) if code.has_offset else 0)
    r = [value - f32(offset) for value in x]
    if code.is_linear:
        return linear(x)
    s = f32(code.rms_to_scale) * np.sqrt(tree([value * value for value in r]) * f32(1 / 128))
    offset_bits = int(offset.view(np.uint16))
    if s == 0:
        return [0] * 128, 0, offset_bits
    fine = f32(1024) / s
    v = [rint(value * fine) for value in r]
    assert max(map(abs, v)) < 2**15
    level = [code.levels[one] for one in choose([one // 16 for one in v], code)]
    num, den = sum(a * b for a, b in zip(v, level, strict=True)), sum(a * a for a in level)
    scale = np.float16(min(s * f32(num) / f32(16 * den), f32(65504)))
    if scale == 0:
        return [0] * 128, 0, offset_bits
    coarse = f32(64) / f32(scale)
    u = [rint(value * coarse - f32(0.5)) for value in r]
    assert max(map(abs, u)) < 2**15
    return choose(u, code), int(scale.view(np.uint16)), offset_bits


def linear(x: list[np.float32]) -> tuple[list[int], int, int]:
    scale = np.float16(max(abs(value) for value in x) * (f32(64) / f32(127)))
    if scale == 0:
        return [0] * 128, 0, 0
    inverse = f32(64) / f32(scale)
    levels = [max(-128, min(127, rint(value * inverse))) for value in x]
    return [level % 256 for level in levels], int(scale.view(np.uint16)), 0


def lanes(rng: np.random.Generator) -> np.ndarray:
    sizes = (1e-45, 1e-40, 1e-20, 1e-9, 3e-8, 6e-8, 1e-6, 1e-3, 1.0, 100.0, 6e4)
    some = [size * rng.standard_normal(128) for size in sizes]
    some += [size * (rng.standard_normal(128) + 3) for size in sizes[2:-1]]
    some += [rng.standard_cauchy(128), np.clip(1e5 * rng.standard_normal(128), -65504, 65504)]
    some += [np.where(np.arange(128) == 5, size, 0.0) for size in (2.3e-22, 4e-6, 8e-6, 1.0, 6e4)]
    some += [np.full(128, 3e-8), np.full(128, 65504.0), np.where(np.arange(128) == 9, 65504.0, -65504.0)]
    some += [np.where(np.arange(128) == 77, bad, 1.0) for bad in (np.nan, np.inf, -np.inf, 65504.01, 65505.0, -7e4)]
    some += [np.zeros(128), -np.zeros(128), np.where(np.arange(128) == 127, 1.0, 0.0)]
    return np.stack(some).astype(np.float32)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("code", [*CODES.values(), *OTHERS], ids=str)
def test_every_lane_is_as_the_slow_packer_has_it(code: Code, half: bool) -> None:
    rng = np.random.default_rng(code.bits)
    with np.errstate(over="ignore"):
        data = np.concatenate([lanes(rng) for _ in range(2)]).astype(np.float16 if half else np.float32)
    tiles = quantise(data, code)
    for i, lane in enumerate(data):
        codes, scale, offset = slow(lane, code)
        assert tiles.codes[i].tolist() == codes, i
        assert (tiles.scale[i].view(np.uint16), tiles.offset[i].view(np.uint16)) == (scale, offset), i


@pytest.mark.parametrize(("bits", "bound"), [(1, 0.363), (2, 0.1175), (4, 0.0095)])
def test_gaussian_error_is_that_of_lloyd_max(bits: int, bound: float) -> None:
    x = np.random.default_rng(1).standard_normal((4096, 128)).astype(np.float32)
    error = np.square(quantise(x, CODES[bits]).values() - x).mean()
    assert 0.9 * bound < error < 1.005 * bound


def test_the_error_of_8_bits_is_that_of_steps_from_the_largest_value_down() -> None:
    x = np.random.default_rng(1).standard_normal((4096, 128)).astype(np.float32)
    step = np.abs(x).max(axis=-1) / 127
    error = np.square(quantise(x, CODES[8]).values() - x).mean()
    assert 0.99 < error / np.mean(np.square(step) / 12) < 1.01
    assert 4.2e-5 < error < 4.6e-5


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_errors_have_no_bias(bits: int) -> None:
    # An average over many tokens shows a bias that a squared error hides.
    x = np.random.default_rng(2).standard_normal((4096, 128)).astype(np.float32)
    error = quantise(x, CODES[bits]).values() - x
    assert abs(error.mean()) < 4 * error.std() / math.sqrt(error.size)


@pytest.mark.parametrize(("side", "bits"), list(itertools.product("kv", (1, 2, 4, 8))))
@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_values_come_back_where_they_were(side: str, bits: int, head_dim: int) -> None:
    # Values that the codes can hold exactly, different for each batch, head, token and channel.
    batch, n_heads, tokens = 2, 256 // head_dim * 2, 256
    rng = np.random.default_rng(3)
    levels = np.asarray(CODES[bits].levels if bits < 8 else (*range(-127, 0), 127)) / 64
    tiled = np.stack([rng.permutation(np.repeat(levels, 128 // len(levels))) for _ in range(batch * 4 * 2 * 128)])
    tiled = tiled.reshape(batch, 4, 2, 128, 128)
    kind = Kind(side, CODES[bits])
    source = (tiled if side == "k" else tiled.swapaxes(-1, -2)).reshape(batch, 4, tokens, 128).astype(np.float16)
    found = heads(unpack(pack(source, kind), kind, batch, 4).values(), side, n_heads, head_dim)
    assert found.shape == (batch, n_heads, tokens, head_dim)
    for _ in range(200):
        b, h, t, d = (int(rng.integers(n)) for n in found.shape)
        element = h * head_dim + d
        original = float(source[b, element // 128, t, element % 128])
        if bits == 4:  # uniform data, whose fitted scale is not 1
            assert abs(found[b, h, t, d] - original) < 0.3
        else:
            assert abs(found[b, h, t, d] - original) <= 2**-11 * abs(original)


def test_any_strides_give_the_same_bytes() -> None:
    rng = np.random.default_rng(4)
    source = rng.standard_normal((2, 3, 128, 128)).astype(np.float16)
    strided = np.zeros((2, 128, 6, 256), np.float16).transpose(0, 2, 1, 3)[:, ::2, :, ::2]
    strided[...] = source
    for kind in (Kind("k", CODES[2]), Kind("v", CODES[4])):
        np.testing.assert_array_equal(pack(source, kind), pack(strided, kind))


def test_parts_of_tiles_are_refused() -> None:
    with pytest.raises(ValueError, match="no whole tiles"):
        pack(np.zeros((1, 1, 127, 128), np.float16), Kind("k", CODES[2]))
