"""Compare variations of a packed cache on a small llama model in numpy, with decoded against original keys and values.

    llama-perplexity -m M.gguf -f T.txt -c 1024 -b 1024 --kl-divergence-base tokens.kld
    python scripts/quality_simulation.py M.gguf tokens.kld --windows 16 --only 'K4V4'

Everything but the codes is float32: attention is exact on decoded values, so all differences come from the format.
The second half of each window of 1024 tokens is scored, as by llama-perplexity. docs/quality.md has the results.
"""

from __future__ import annotations

import argparse
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from numpy.typing import NDArray

from qlutattn_patch.proof.reference.quantise import quantise
from qlutattn_patch.proof.reference.tile import CODES, SIZE, UNIT
from qlutattn_patch.proof.second_axis import Side

Floats = NDArray[np.float32]
N_CTX = 1024
LLOYD_MAX = {  # the upper half of the levels, for values of deviation 1
    1: [0.7979],
    2: [0.4528, 1.5104],
    4: [0.1284, 0.3881, 0.6568, 0.9424, 1.2562, 1.6181, 2.0690, 2.7326],
}


@dataclass(frozen=True)
class Variation:
    """A cache: bits of keys and values (16: f16), tokens kept as f16, and the differences from the format."""

    name: str
    k: int = 16
    v: int = 16
    window: int = 0
    sink: int = 0
    rotate_k: int = 128  # channels that a Hadamard matrix mixes; 0 for none
    rotate_v: int = 64
    k_axes: tuple[str, ...] = ()  # vectors per tile along the channels of K (second_axis.py)
    v_axes: tuple[str, ...] = ()  # along the tokens of V
    offset: bool = True
    fits: int = 1  # least-squares fits of the scale; with 0 it follows from the deviation
    lloyd_max: bool = False  # the best levels for Gaussian values, instead of small integers near them
    min_max: bool = False  # evenly spaced levels from the least to the greatest value
    unbiased: bool = False  # scaled so that <decoded, original> equals <original, original>
    bias: float = 0.0  # the fraction of the scores' variance lost by coding that is restored

    @property
    def is_format(self) -> bool:
        return self.offset and self.fits == 1 and not (self.lloyd_max or self.min_max or self.unbiased)

    def packed(self) -> NDArray[np.bool_]:
        """The keys that a query sees packed [query, key]: full tiles outside of window and sink."""
        query, key = np.arange(N_CTX)[:, None], np.arange(N_CTX)[None]
        end = key // SIZE * SIZE + SIZE - 1
        return (query - end > self.window) & (key >= self.sink)

    def decode(self, lanes: Floats, bits: int) -> Floats:
        """Lanes [..., 128] after packing and decoding."""
        lanes = lanes.astype(np.float16)
        if self.is_format:
            return quantise(lanes, CODES[bits]).values().astype(np.float32)
        x = lanes.astype(np.float32)
        if self.min_max:
            low, high = x.min(-1, keepdims=True), x.max(-1, keepdims=True)
            step = _half(np.maximum((high - low) / (2**bits - 1), 1e-6))
            even: Floats = np.clip(np.rint((x - _half(low)) / step), 0, 2**bits - 1) * step + _half(low)
            return even
        upper = LLOYD_MAX[bits] if self.lloyd_max else None
        levels = np.asarray([-x for x in reversed(upper)] + upper if upper else CODES[bits].levels, np.float32)
        levels /= 1 if upper else UNIT
        thresholds = (levels[1:] + levels[:-1]) / 2
        offset = _half(x.mean(-1, keepdims=True)) if self.offset else np.zeros((), np.float32)
        r = x - offset
        first = 1 if upper else np.float32(CODES[bits].rms_to_scale)
        scale = np.maximum(first * np.sqrt((r * r).mean(-1, keepdims=True)), 1e-6)
        for _ in range(self.fits):
            level = levels[np.searchsorted(thresholds, r / scale)]
            scale = (r * level).sum(-1, keepdims=True) / (level * level).sum(-1, keepdims=True)
        if self.unbiased:
            level = levels[np.searchsorted(thresholds, r / scale)]
            scale = (r * r).sum(-1, keepdims=True) / np.maximum((r * level).sum(-1, keepdims=True), 1e-12)
            found: Floats = level * _half(scale) + offset
            return found
        scale = _half(scale)
        return levels[np.searchsorted(thresholds, r / scale)] * scale + offset

    def keys(self, k: Floats) -> tuple[Floats, Floats]:
        """Decoded keys [token, head, channel], and the mean squared error of each [token, head]."""
        x = _rotate(k, self.rotate_k)
        found = _by_head(x, Side("k", self.k, self.k_axes)) if self.k_axes else self.decode(x, self.k)
        return _rotate(found, self.rotate_k), ((found - x) ** 2).mean(-1)

    def values(self, v: Floats) -> Floats:
        """Decoded values [token, head, channel]: lanes are channels."""
        x = _rotate(v, self.rotate_v)
        if self.v_axes:
            return _rotate(_by_head(x, Side("v", self.v, self.v_axes)), self.rotate_v)
        lanes = np.ascontiguousarray(x.reshape(-1, SIZE, *v.shape[1:]).transpose(0, 2, 3, 1))
        found = self.decode(lanes, self.v).transpose(0, 3, 1, 2).reshape(v.shape)
        return _rotate(found, self.rotate_v)


class Model:
    """A llama model, loaded into memory."""

    def __init__(self, path: Path) -> None:
        reader = GGUFReader(path)
        self.weights = {tensor.name: np.asarray(tensor.data, np.float32) for tensor in reader.tensors}
        names = {"block_count", "attention.head_count", "attention.head_count_kv", "rope.freq_base"}
        names |= {"attention.key_length", "attention.layer_norm_rms_epsilon"}
        found = {name: reader.fields[f"llama.{name}"].contents() for name in names}
        self.layers, self.epsilon = found["block_count"], found["attention.layer_norm_rms_epsilon"]
        self.heads, self.kv_heads = found["attention.head_count"], found["attention.head_count_kv"]
        self.size = found["attention.key_length"]
        frequencies = found["rope.freq_base"] ** (-2.0 * np.arange(self.size // 2) / self.size)
        self.angles = np.outer(np.arange(N_CTX), frequencies).astype(np.float32)[:, None]

    def log_probabilities(self, tokens: NDArray[np.int32], cache: Variation) -> Floats:
        """The log probability of each next token in the second half of a window."""
        x = self.weights["token_embd.weight"][tokens]
        for layer in range(self.layers):
            w = {n: self.weights[f"blk.{layer}.{n}.weight"] for n in ("attn_norm", "attn_q", "attn_k", "attn_v")}
            h = self._norm(x, w["attn_norm"])
            biases = {
                n: self.weights.get(f"blk.{layer}.{n}.bias", np.zeros((), np.float32)) for n in ("attn_q", "attn_k")
            }
            q, k = (self._turn(self._split(h @ w[name].T + bias)) for name, bias in biases.items())
            mixed = self._attend(q, _half(k), _half(self._split(h @ w["attn_v"].T)), cache)
            x = x + mixed @ self.weights[f"blk.{layer}.attn_output.weight"].T
            h = self._norm(x, self.weights[f"blk.{layer}.ffn_norm.weight"])
            gate, up, down = (self.weights[f"blk.{layer}.ffn_{name}.weight"].T for name in ("gate", "up", "down"))
            g = h @ gate
            x = x + (g / (1 + np.exp(-g)) * (h @ up)) @ down
        logits = self._norm(x[N_CTX // 2 : -1], self.weights["output_norm.weight"]) @ self.weights["output.weight"].T
        logits -= logits.max(-1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        return logits

    def _attend(self, q: Floats, k: Floats, v: Floats, cache: Variation) -> Floats:
        packed = cache.packed()
        decoded_k, error = cache.keys(k) if cache.k < 16 else (None, np.zeros(k.shape[:2], np.float32))
        decoded_v = cache.values(v) if cache.v < 16 else None
        out = np.empty_like(q)
        for head in range(self.heads):
            of = head * self.kv_heads // self.heads
            query = q[:, head] / np.float32(np.sqrt(self.size))
            scores = query @ k[:, of].T
            if decoded_k is not None:
                coarse = query @ decoded_k[:, of].T
                lost = (query * query).sum(-1, keepdims=True) * error[:, of]
                scores = np.where(packed, coarse + np.float32(cache.bias / 2) * lost, scores)
            scores += np.triu(np.full((N_CTX, N_CTX), -np.inf, np.float32), 1)
            p = np.exp(scores - scores.max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            out[:, head] = p @ v[:, of]
            if decoded_v is not None:
                out[:, head] += (p * packed) @ (decoded_v - v)[:, of]
        return out.reshape(N_CTX, -1)

    def _norm(self, x: Floats, weight: Floats) -> Floats:
        normal: Floats = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(self.epsilon)) * weight
        return normal

    def _split(self, x: Floats) -> Floats:
        return x.reshape(N_CTX, -1, self.size)

    def _turn(self, x: Floats) -> Floats:
        """Rotary positions, of neighbouring pairs."""
        cos, sin = np.cos(self.angles), np.sin(self.angles)
        a, b = x[..., 0::2], x[..., 1::2]
        return np.stack([a * cos - b * sin, a * sin + b * cos], axis=-1).reshape(x.shape)


def variations() -> list[Variation]:
    """All variations in docs/quality.md."""
    pairs = [("K4V4", 4, 4), ("K4V2", 4, 2), ("K2V2", 2, 2), ("K2V1", 2, 1), ("K1V1", 1, 1)]
    made = [Variation(name, k, v) for name, k, v in pairs]
    made += [Variation(f"{name}+w128+s128", k, v, 128, 128) for name, k, v in pairs]
    made += [Variation(f"{name}, Lloyd-Max", k, v, lloyd_max=True) for name, k, v in (pairs[0], pairs[2])]
    for bits in (4, 2, 1):
        made += [Variation(f"K{bits}", k=bits), Variation(f"V{bits}", v=bits)]
        for end, window, sink in (("", 0, 0), ("+w128+s128", 128, 128)):
            made += [Variation(f"K{bits}{end}", bits, 16, window, sink)] if end else []
            made += [Variation(f"K{bits}{end}, variance given back", bits, 16, window, sink, bias=1.0)]
            made += [Variation(f"K{bits}{end}, unbiased", bits, 16, window, sink, unbiased=True)]
    for bits in (4, 2):
        for name, k, v in ((f"K{bits}", bits, 16), (f"V{bits}", 16, bits)):
            made += [Variation(f"{name}, {fits} fits", k, v, fits=fits) for fits in (0, 2)]
            made += [Variation(f"{name}, no offset", k, v, offset=False)]
            made += [Variation(f"{name}, min-max", k, v, min_max=True)]
        made += [Variation(f"K{bits}, not rotated", k=bits, rotate_k=0)]
        made += [Variation(f"K{bits}, channel means apart", k=bits, k_axes=("m",))]
        made += [Variation(f"V{bits}, not rotated", v=bits, rotate_v=0)]
        made += [Variation(f"K{bits}, a direction", k=bits, k_axes=("d",))]
        made += [Variation(f"V{bits}, token scales", v=bits, v_axes=("s",))]
    for end, window, sink in (("", 0, 0), ("+w128+s128", 128, 128)):
        made += [
            Variation(f"K{k}{''.join(own_k)}V{v}{''.join(own_v)}{end}", k, v, window, sink, k_axes=own_k, v_axes=own_v)
            for _, k, v in pairs[:3]
            for own_k, own_v in (
                (("m",), ("s",)),
                (("d",), ("s",)),
                (("d8", "d8"), ("s8",)),
                (("d8", "d8"), ("d8", "s8")),
            )
        ]
    return made


def read_tokens(path: Path) -> NDArray[np.int32]:
    """The windows of a file of logits, [window, token]."""
    with path.open("rb") as file:
        magic, n_ctx, _, count = struct.unpack("<8sIii", file.read(20))
        if magic != b"_logits_" or n_ctx != N_CTX:
            raise SystemExit(f"{path} is not a file of logits for contexts of {N_CTX}")
        return np.frombuffer(file.read(4 * n_ctx * count), "<i4").reshape(count, n_ctx)


def main() -> None:
    """Print a line for each variation: mean divergence, its standard error over windows, median, 99.9 %, same top."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--only", type=re.compile, default=re.compile(""), metavar="REGEX")
    given = parser.parse_args()
    model, tokens = Model(given.model), read_tokens(given.tokens)
    windows = tokens[np.linspace(0, len(tokens) - 1, min(given.windows, len(tokens))).astype(int)]
    base = [model.log_probabilities(window, Variation("f16")) for window in windows]
    for cache in (found for found in variations() if given.only.search(found.name)):
        kld, same = [], []
        for window, p in zip(windows, base, strict=True):
            q = model.log_probabilities(window, cache)
            kld.append((np.exp(p) * (p - q)).sum(-1))
            same.append(p.argmax(-1) == q.argmax(-1))
        means = [one.mean() for one in kld]
        print(
            f"{cache.name:32} {np.mean(means):.6f} ± {np.std(means) / np.sqrt(len(means)):.6f}"
            f"  {np.median(kld):.6f}  {np.quantile(kld, 0.999):.4f}  {100 * np.mean(same):.2f} %",
            flush=True,
        )


def _by_head(x: Floats, side: Side) -> Floats:
    """Keys or values [token, head, channel] after packing and decoding, head by head."""
    heads = [side.decoded(x[:, head].astype(np.float16).astype(np.float64)) for head in range(x.shape[1])]
    return np.stack(heads, axis=1).astype(np.float32)


def _rotate(x: Floats, size: int) -> Floats:
    """Channels mixed by Hadamard matrices of this size, which are their own inverses."""
    if not size:
        return x
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return (x.reshape(*x.shape[:-1], -1, size) @ (matrix / np.float32(np.sqrt(size)))).reshape(x.shape)


def _half(x: Floats) -> Floats:
    return x.astype(np.float16).astype(np.float32)


if __name__ == "__main__":
    main()
