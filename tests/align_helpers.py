"""What the tests of the reference and of align share: random problems, kernels that round to int8, dumps."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from qlutattn_patch.proof.reference.attention import Packed, Problem, Segment, attend, each_head
from qlutattn_patch.proof.reference.quantise import columns, pack, unpack
from qlutattn_patch.proof.reference.steps import STEPS
from qlutattn_patch.proof.reference.tile import SIZE, Kind, Tiles
from qlutattn_patch.proof.reference.tolerance import head_slices

PAIRS = list(itertools.product((1, 2, 4, 8), repeat=2))  # bits of K and V


def rounded_product(tiles: Tiles, x: np.ndarray, kernel: str, depth: slice, lanes: slice) -> np.ndarray:
    """One tile times x [query, depth] as a kernel does it: x rounded to integers, everything else in float64."""
    step = np.abs(x).max(axis=1, keepdims=True) / STEPS[kernel]
    step = np.where(step == 0, 1, step)
    level = np.asarray(tiles.code.levels) / 64
    total = np.round(x / step) * step @ level[tiles.codes[lanes, depth].astype(int)].T
    scale, offset = tiles.scale[lanes].astype(np.float64), tiles.offset[lanes].astype(np.float64)
    return total * scale + x.sum(axis=1, keepdims=True) * offset


def one(tiles: Tiles, *at: int) -> Tiles:
    return Tiles(tiles.code, tiles.codes[at], tiles.scale[at], tiles.offset[at])


def int8_attention(problem: Problem) -> np.ndarray:
    """The mixed attention with K and V products of packed tiles rounded as the kernels do."""
    batch, n_head, n_q = problem.q.shape[:3]
    out = np.zeros((batch, n_q, n_head, problem.head_dim_v))
    for b, h, rows in each_head(problem):
        kv = problem.kv_head(h)
        scores = rows.scores.copy()
        starts = np.cumsum([0, *(segment.keys.shape[2] for segment in problem.segments)])
        for start, segment in zip(starts, problem.segments, strict=False):
            if segment.packed_k is None:
                continue
            assert problem.softcap == 0
            for tile in range(segment.keys.shape[2] // SIZE):
                q = problem.q[b, h]
                if segment.shifts is not None and problem.q_shifted is not None and segment.shifts[b, tile] > 0:
                    q = problem.q_shifted[segment.shifts[b, tile] - 1, b, h]
                for column, inside, channels in head_slices(kv, problem.q.shape[3]):
                    x = q[:, channels]
                    k = one(segment.packed_k.tiles, b, column, tile)
                    exact = x @ k.values()[:, inside].T
                    close = rounded_product(k, x, segment.packed_k.kernel, inside, slice(0, SIZE))
                    scores[:, start + tile * SIZE :][:, :SIZE] += problem.scale * (close - exact)
        top = scores.max(axis=1, keepdims=True)
        p = np.where(rows.visible, np.exp(scores - np.where(np.isfinite(top), top, 0)), 0)
        total = np.zeros((n_q, problem.head_dim_v))
        for start, segment in zip(starts, problem.segments, strict=False):
            count = segment.keys.shape[2]
            if segment.packed_v is None:
                latent = segment.packed_k if segment.is_latent else None
                tokens = p[:, start : start + count]
                total += (
                    tokens @ segment.values[b, kv] if latent is None else rounded_keys(latent, tokens, b, kv, total)
                )
                continue
            for tile in range(count // SIZE):
                x = p[:, start + tile * SIZE :][:, :SIZE]
                for column, lanes, channels in head_slices(kv, problem.head_dim_v):
                    v = one(segment.packed_v.tiles, b, column, tile)
                    total[:, channels] += rounded_product(v, x, segment.packed_v.kernel, slice(0, SIZE), lanes)
        weight = p.sum(axis=1, keepdims=True)
        out[b, :, h] = total / np.where(weight == 0, 1, weight)
    return out


def rounded_keys(packed_k: Packed, p: np.ndarray, b: int, kv: int, like: np.ndarray) -> np.ndarray:
    """Weights p times the first channels of packed keys, the weights rounded with their tokens' scales."""
    total = np.zeros_like(like)
    for tile in range(p.shape[1] // SIZE):
        for column, inside, channels in head_slices(kv, packed_k.head_dim):
            k = one(packed_k.tiles, b, column, tile)
            x = p[:, tile * SIZE :][:, :SIZE]
            scaled = x * k.scale.astype(np.float64)
            step = np.maximum(scaled.max(axis=1, keepdims=True), 1e-300) / STEPS["dot"]
            level = np.asarray(k.code.levels)[k.codes[:, inside]] / 64
            sums = np.round(scaled / step) * step @ level + x @ k.offset.astype(np.float64)[:, None]
            total[:, channels] += sums[:, : total[:, channels].shape[1]]
    return total


def causal(n_q: int, n_tokens: int, shift: int) -> np.ndarray:
    """A mask [1, 1, n_q, n_tokens]: query i sees the tokens up to i + shift."""
    return np.where(np.arange(n_tokens) <= np.arange(n_q)[:, None] + shift, 0.0, -np.inf)[None, None]


def to_columns(rows: np.ndarray) -> np.ndarray:
    """Sources [batch, column, token, 128] from [batch, kv head, token, channel]; zeros fill up the last column."""
    batch, heads, tokens, channels = rows.shape
    flat = rows.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * channels)
    flat = np.pad(flat, ((0, 0), (0, 0), (0, -flat.shape[2] % SIZE)))
    return flat.reshape(batch, tokens, -1, SIZE).transpose(0, 2, 1, 3)


def packed(kind: Kind, source: np.ndarray) -> Tiles:
    return unpack(pack(source, kind), kind, source.shape[0], source.shape[1])


def problem(
    rng: np.random.Generator,
    type_k: str,
    type_v: str,
    *,
    head_dim: int = 128,
    head_dim_v: int | None = None,
    n_q: int = 2,
    n_head: int = 2,
    n_head_kv: int = 2,
    n_window: int = 16,
    tiles: int = 1,
    kernels: tuple[str, str] = ("lut", "lut"),
    k_size: float = 1.0,
    mask: np.ndarray | None = None,
    maskp: np.ndarray | None = None,
    q: np.ndarray | None = None,
    **more: Any,
) -> Problem:
    """A random problem with a window and tiles."""
    sizes = head_dim, head_dim_v or head_dim
    shapes = [(1, n_head_kv, tiles * SIZE, size) for size in sizes]
    k = packed(Kind.of(type_k), to_columns((k_size * rng.standard_normal(shapes[0])).astype(np.float16)))
    v = packed(Kind.of(type_v), to_columns(rng.standard_normal(shapes[1]).astype(np.float16)))
    window = [
        rng.standard_normal((1, n_head_kv, n_window, size)).astype(np.float16).astype(np.float64) for size in sizes
    ]
    segments = [Segment(k_size * window[0], window[1], mask)] if n_window else []
    sides = Packed(k, kernels[0], sizes[0]), Packed(v, kernels[1], sizes[1])
    segments.append(Segment.of_tiles(*sides, n_head_kv, maskp))
    if q is None:
        q = rng.standard_normal((1, n_head, n_q, head_dim)).astype(np.float32).astype(np.float64)
    return Problem(q, tuple(segments), head_dim**-0.5, n_head_kv, **more)


def write_dump(path: Path, cases: list[Mapping[str, Any]]) -> None:
    """Write a dump as align_attn does; what is no array becomes a key, arrays are in numpy's order of axes."""
    writer = gguf.GGUFWriter(path, "qlutattn-dump")
    writer.add_uint32("qlutattn.dump.version", 2)
    writer.add_uint32("qlutattn.dump.n_cases", len(cases))
    for i, case in enumerate(cases):
        for key, value in case.items():
            if isinstance(value, np.ndarray):
                writer.add_tensor(f"c{i}.{key}", np.ascontiguousarray(value))
            elif isinstance(value, str):
                writer.add_string(f"case.{i}.{key}", value)
            elif isinstance(value, int):
                writer.add_uint32(f"case.{i}.{key}", value)
            else:
                writer.add_float32(f"case.{i}.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def dump_case(
    k: int = 2,
    v: int = 2,
    *,
    f16: str = "",
    head_dim: int = 128,
    head_dim_v: int | None = None,
    tiles: int = 1,
    window: int = 5,
    extras: bool = False,
    shifts: tuple[int, ...] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """A case as align_attn would dump it if it were exact.

    `f16` names a side of the packed segment that is f16; `extras` adds a mask, ALiBi, softcap, sinks and a NaN;
    `shifts` names the queries of each tile."""
    rng = np.random.default_rng(seed + 10 * k + v)
    types = f"qlutattn_k{k}_128x128", f"qlutattn_v{v}_128x128"
    kinds = [Kind.of(name) for name in types]
    n_q, n_head, n_kv = 3, 4, 2
    sizes = head_dim, head_dim_v or head_dim
    case: dict[str, Any] = {
        "id": f"k{k}v{v}-d{sizes[0]}v{sizes[1]}-t{tiles}-w{window}" + ("-extras" if extras else ""),
        "type_k": types[0],
        "type_v": types[1],
        "kernel_k": "lut",
        "kernel_v": "dot" if v == 4 else "lut",
        "scale": 0.125,
        "max_bias": 8.0 if extras else 0.0,
        "logit_softcap": 4.0 if extras else 0.0,
        "n_head_kv": n_kv,
        "head_dim": sizes[0],
        "head_dim_v": sizes[1],
        "q": rng.standard_normal((1, n_head, n_q, head_dim)).astype(np.float32),
    }
    segments = []
    if shifts:
        case["q_shifted"] = rng.standard_normal((max(shifts), n_head, n_q, head_dim)).astype(np.float32)
        case["tile_shift"] = np.array(shifts, np.int32)[None]
    if window:
        case["k"], case["v"] = (rng.standard_normal((1, n_kv, window, size)).astype(np.float16) for size in sizes)
        segments.append(Segment(case["k"].astype(float), case["v"].astype(float)))
    if tiles:
        kind_of_source = np.float16 if v == 1 else np.float32
        sources = [rng.standard_normal((1, n_kv, tiles * 128, size)).astype(kind_of_source) for size in sizes]
        if extras:
            case["maskp"] = causal(n_q, tiles * 128, 100).astype(np.float16)
            sources[1][0, 1, 3, 3] = np.nan
        sides = _pack_into(case, kinds, sources, f16)
        segment = Segment.of_tiles(*sides, n_kv, case["maskp"].astype(float) if extras else None)
        segments.append(replace(segment, shifts=case.get("tile_shift")))
    if extras:
        case["sinks"] = rng.standard_normal(n_head).astype(np.float32)
    case["out"] = attend(_problem_of(case, tuple(segments))).astype(np.float32)
    return case


def _problem_of(case: dict[str, Any], segments: tuple[Segment, ...]) -> Problem:
    return Problem(
        case["q"].astype(float),
        segments,
        case["scale"],
        case["n_head_kv"],
        case["max_bias"],
        case["logit_softcap"],
        case["sinks"].astype(float) if "sinks" in case else None,
        case["q_shifted"][:, None].astype(float) if "q_shifted" in case else None,
    )


def _pack_into(case: dict[str, Any], kinds: list[Kind], sources: list[np.ndarray], f16: str) -> list[Any]:
    """Put K and V of the packed segment into a case, as sources and as tiles; the sides of that segment."""
    case["ksrc"], case["vsrc"] = (to_columns(source) for source in sources)
    sides: list[Any] = []
    for name, kind, source in zip("kv", kinds, sources, strict=True):
        if name == f16:
            case[f"type_{name}"] = case[f"kernel_{name}"] = "f16"
            sides.append(source.astype(float))
            continue
        data = pack(case[f"{name}src"], kind)
        case[f"{name}p"] = data.reshape(-1).view(np.int8)
        tiles = unpack(data, kind, 1, case[f"{name}src"].shape[1])
        case[f"{name}u"] = columns(tiles.values(), name).astype(np.float32 if name == "k" else np.float16)
        sides.append(Packed(tiles, case[f"kernel_{name}"], source.shape[3]))
    return sides
