"""Read the GGUF file that align_attn dumps, and check it against the numpy reference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import gguf
import numpy as np
from numpy.typing import NDArray

from qlutattn_patch.proof.reference.attention import Packed, Problem, Segment
from qlutattn_patch.proof.reference.quantise import columns, pack, unpack
from qlutattn_patch.proof.reference.steps import STEPS, arithmetic
from qlutattn_patch.proof.reference.tile import SIZE, Code, Kind, Tiles, from_bytes
from qlutattn_patch.proof.reference.tolerance import judged
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.templates.formats import QuantType

VERSION = 2
HEAD_SIZES = range(64, 641, 64)
T = TypeVar("T", str, int, float)


@dataclass(frozen=True)
class DumpCase:
    """One case of a dump; tensors have four axes in numpy's order (ggml's ne[3] first), packed bytes one."""

    id: str
    type_k: str
    type_v: str
    kernel_k: str
    kernel_v: str
    scale: float
    max_bias: float
    softcap: float
    n_head_kv: int
    head_dim: int
    head_dim_v: int
    smoothing: float | None
    tensors: Mapping[str, NDArray[Any]]


@dataclass
class Verdict:
    """The reference's verdict on one case: the worst element, and every finding."""

    id: str
    tiles: Mapping[str, int] = field(default_factory=dict)
    ratio: float = 0.0
    worst: str = ""
    wrong: list[str] = field(default_factory=list)


def check(path: Path, types: Iterable[QuantType] = ()) -> Iterator[Verdict]:
    """Check each case of a dump: its tiles byte for byte, its result element by element.

    `types` are those that may occur besides the six built into the reference.
    """
    added_kinds = {
        kind.name: Kind(kind.side, Code(kind.levels, kind.rms_to_scale, kind.layout, kind.has_offset)) for kind in types
    }
    for case in read(path):
        verdict = Verdict(case.id)
        try:
            problem = _problem(case, added_kinds, verdict)
            _check_result(case, problem, verdict)
        except ValueError as failure:
            verdict.wrong.append(f"the dump of this case is invalid: {failure}")
        yield verdict


def read(path: Path) -> Iterator[DumpCase]:
    """The cases of a dump."""
    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as failure:
        raise ExpectedError(f"{path} is not a readable GGUF file: {failure}.", "run it again") from None
    fields = _Keys(path, reader)
    version = fields.get("qlutattn.dump.version", int)
    if version != VERSION:
        raise ExpectedError(
            f"{path} is a dump of version {version}; this qlutattn reads version {VERSION}.",
            "build the tree again: qlutattn build",
        )
    tensors = {tensor.name: np.asarray(tensor.data) for tensor in reader.tensors}
    for i in range(fields.get("qlutattn.dump.n_cases", int)):
        start = f"c{i}."
        yield DumpCase(
            id=fields.get(f"case.{i}.id", str),
            type_k=fields.get(f"case.{i}.type_k", str),
            type_v=fields.get(f"case.{i}.type_v", str),
            kernel_k=fields.get(f"case.{i}.kernel_k", str),
            kernel_v=fields.get(f"case.{i}.kernel_v", str),
            scale=fields.get(f"case.{i}.scale", float),
            max_bias=fields.get(f"case.{i}.max_bias", float),
            softcap=fields.get(f"case.{i}.logit_softcap", float),
            n_head_kv=fields.get(f"case.{i}.n_head_kv", int),
            head_dim=fields.get(f"case.{i}.head_dim", int),
            head_dim_v=fields.get(f"case.{i}.head_dim_v", int),
            smoothing=fields.find(f"case.{i}.smoothing", float),
            tensors={
                name.removeprefix(start): _as_stored(name.removeprefix(start), data)
                for name, data in tensors.items()
                if name.startswith(start)
            },
        )


@dataclass(frozen=True)
class _Keys:
    """The keys of a GGUF file, by name and kind."""

    path: Path
    reader: gguf.GGUFReader

    def get(self, key: str, kind: type[T]) -> T:
        found = self.find(key, kind)
        if found is None:
            raise ExpectedError(f"{self.path} lacks the key '{key}'.", "build the tree again: qlutattn build")
        return found

    def find(self, key: str, kind: type[T]) -> T | None:
        found = self.reader.get_field(key)
        if found is None:
            return None
        raw = found.parts[found.data[0]]
        value = bytes(raw).decode("utf-8", "replace") if found.types[0] == gguf.GGUFValueType.STRING else raw[0].item()
        if type(value) is not kind:
            raise ExpectedError(f"{self.path}: the key '{key}' is not of type {kind.__name__}.", "build the tree again")
        return value


def _as_stored(name: str, data: NDArray[Any]) -> NDArray[Any]:
    if name in ("kp", "vp"):
        return data.reshape(-1).view(np.uint8)
    if name == "sinks":
        return data.reshape(-1)
    # GGUF drops trailing axes of one element
    return data.reshape((1,) * (4 - data.ndim) + data.shape)


def _problem(case: DumpCase, added_kinds: Mapping[str, Kind], verdict: Verdict) -> Problem:
    sides = _sides(case, added_kinds)
    have = case.tensors
    q = _double(_need(case, "q"))
    sizes = (case.head_dim, case.head_dim_v)
    if q.shape[3] != case.head_dim or any(size not in HEAD_SIZES for size in sizes) or q.shape[1] % case.n_head_kv:
        raise ValueError(f"q has the shape {q.shape} for {case.n_head_kv} kv heads of {sizes[0]} and {sizes[1]}")
    segments = []
    if "k" in have or "v" in have:
        keys, values = _double(_need(case, "k")), _double(_need(case, "v"))
        mask = _mask(case, "mask", q.shape[2], keys.shape[2])
        is_latent = case.type_v == case.type_k != "f16"
        segments.append(Segment(keys, values, mask, is_latent=is_latent, smoothing=case.smoothing))
    if "kp" in have or "vp" in have:
        segments.append(_packed_segment(case, sides, q.shape, verdict))
    for segment in segments:
        rows = (q.shape[0], case.n_head_kv, segment.keys.shape[2])
        if (segment.keys.shape, segment.values.shape) != ((*rows, sizes[0]), (*rows, sizes[1])):
            raise ValueError(f"k and v have the shapes {segment.keys.shape} and {segment.values.shape}")
    sinks = _double(have["sinks"]) if "sinks" in have else None
    if sinks is not None and sinks.shape != (q.shape[1],):
        raise ValueError(f"{sinks.shape[0]} sinks for {q.shape[1]} heads")
    shifted = _shifted_queries(case, q) if "q_shifted" in have else None
    return Problem(q, tuple(segments), case.scale, case.n_head_kv, case.max_bias, case.softcap, sinks, shifted)


def _shifted_queries(case: DumpCase, q: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = _double(_need(case, "q_shifted"))
    if shifted.shape[0] % q.shape[0] or shifted.shape[1:] != q.shape[1:]:
        raise ValueError(f"q_shifted has the shape {shifted.shape}")
    return shifted.reshape(-1, *q.shape)


@dataclass(frozen=True)
class _Side:
    """K or V of the packed segment: its type, kernel and kind (None: f16)."""

    name: str
    type: str
    kernel: str
    kind: Kind | None
    head_dim: int


def _sides(case: DumpCase, added_kinds: Mapping[str, Kind]) -> list[_Side]:
    sides = []
    for name, type_name, kernel, head_dim in (
        ("k", case.type_k, case.kernel_k, case.head_dim),
        ("v", case.type_v, case.kernel_v, case.head_dim_v),
    ):
        kind = None if type_name == "f16" else Kind.of(type_name, added_kinds)
        is_latent = name == "v" and type_name == case.type_k
        if kind is not None and kind.side != name and not is_latent:
            raise ValueError(f"{type_name} is not a type for {name.upper()}")
        if kind is not None and arithmetic(kernel) not in STEPS:
            raise ValueError(f"the kernel '{kernel}' is unknown")
        sides.append(_Side(name, type_name, kernel, kind, head_dim))
    return sides


def _packed_segment(case: DumpCase, sides: list[_Side], q_shape: tuple[int, ...], verdict: Verdict) -> Segment:
    n_tokens = _need(case, "ksrc").shape[2]
    mask = _mask(case, "maskp", q_shape[2], n_tokens)
    k = _packed_side(case, sides[0], verdict)
    if isinstance(k, Packed) and case.type_v == case.type_k:
        segment = Segment.of_keys(k, case.head_dim_v, case.n_head_kv, mask)
    else:
        segment = Segment.of_tiles(k, _packed_side(case, sides[1], verdict), case.n_head_kv, mask)
    if "tile_shift" not in case.tensors:
        return segment
    shifts = case.tensors["tile_shift"].reshape(q_shape[0], -1)
    n_sets = 1 + _need(case, "q_shifted").shape[0] // q_shape[0]
    if shifts.shape[1] * SIZE != n_tokens or shifts.min() < 0 or shifts.max() >= n_sets:
        raise ValueError(
            f"tile_shift has the shape {shifts.shape} and the sets {shifts.min()} to {shifts.max()} of {n_sets}"
        )
    return replace(segment, shifts=shifts)


def _packed_side(case: DumpCase, side: _Side, verdict: Verdict) -> Packed | NDArray[np.float64]:
    source = _need(case, f"{side.name}src")
    n_embd = case.n_head_kv * side.head_dim
    if source.shape[1] != -(-n_embd // SIZE):
        raise ValueError(f"{side.name}src has {source.shape[1]} columns for {n_embd} channels")
    if side.kind is None:
        rows = _double(source).transpose(0, 2, 1, 3).reshape(source.shape[0], source.shape[2], -1)[..., :n_embd]
        return rows.reshape(*rows.shape[:2], case.n_head_kv, side.head_dim).transpose(0, 2, 1, 3)
    expected = pack(source, side.kind)
    found = _need(case, f"{side.name}p")
    if found.size != expected.size:
        raise ValueError(f"{side.name}p has {found.size} bytes, not {expected.size}")
    found = found.reshape(expected.shape)
    verdict.tiles = {**verdict.tiles, side.type: expected.size // side.kind.tile_bytes}
    _compare_tiles(found, expected, side.kind, side.type, verdict)
    _compare_values(_need(case, f"{side.name}u"), unpack(expected, side.kind, *source.shape[:2]), side, verdict)
    return Packed(unpack(found, side.kind, *source.shape[:2]), side.kernel, side.head_dim)


def _compare_tiles(
    found: NDArray[np.uint8], expected: NDArray[np.uint8], kind: Kind, type_name: str, verdict: Verdict
) -> None:
    wrong = np.argwhere(found != expected)
    if not len(wrong):
        return
    batch, column, tile, byte = (int(i) for i in wrong[0])
    where = f"batch {batch}, column {column}, tile {tile}"
    ours, theirs = (from_bytes(data[batch, column, tile], kind.code) for data in (expected, found))
    parts: list[tuple[str, NDArray[Any], NDArray[Any], NDArray[Any]]] = [
        ("offset", np.argwhere(_bits(ours.offset) != _bits(theirs.offset)), ours.offset, theirs.offset),
        ("scale", np.argwhere(_bits(ours.scale) != _bits(theirs.scale)), ours.scale, theirs.scale),
        ("code", np.argwhere(ours.codes != theirs.codes), ours.codes, theirs.codes),
    ]
    name, places, mine, other = next(part for part in parts if len(part[1]))
    at = tuple(int(i) for i in places[0])
    lane = f"lane {at[0]}" + (f", depth {at[1]}" if len(at) > 1 else "")
    verdict.wrong.append(
        f"{type_name}: {len(wrong)} bytes differ from numpy's, the first at {where}, byte {byte}"
        f" ({found[batch, column, tile, byte]:02x}, not {expected[batch, column, tile, byte]:02x});"
        f" there, the {name} of {lane} is {other[at]}, not {mine[at]}"
    )


def _compare_values(found: NDArray[Any], tiles: Tiles, side: _Side, verdict: Verdict) -> None:
    """Unpacked tiles [batch, column, token, channel], bit by bit."""
    expected = columns(tiles.values(), side.name)
    if found.shape != expected.shape:
        raise ValueError(f"{side.name}u has the shape {found.shape}, not {expected.shape}")
    if found.dtype == np.float16:
        expected = np.clip(expected, -65504, 65504)
    expected = expected.astype(np.float32).astype(found.dtype)
    wrong = np.argwhere(~((found == expected) | (np.isnan(found) & np.isnan(expected))))
    if len(wrong):
        at = tuple(int(i) for i in wrong[0])
        verdict.wrong.append(
            f"{side.type}: {len(wrong)} unpacked values differ from numpy's, the first at batch {at[0]},"
            f" column {at[1]}, token {at[2]}, channel {at[3]}: {found[at]}, not {expected[at]}"
        )


def _check_result(case: DumpCase, problem: Problem, verdict: Verdict) -> None:
    found = _double(_need(case, "out"))
    expected, allowed = judged(problem)
    if found.shape != expected.shape:
        raise ValueError(f"out has the shape {found.shape}, not {expected.shape}")
    finite = np.isfinite(expected)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.abs(found - expected)
        ratio = np.where(error == 0, 0.0, error / allowed)
        ratio = np.where(np.isnan(ratio), np.inf, ratio)
        # A value of inf whose weight is 0 in float32 gives NaN there, so NaN is accepted for inf.
        same = np.isnan(found) | (np.isinf(expected) & (found == expected))
    ratio = np.where(finite, ratio, np.where(same, 0.0, np.inf))
    if not ratio.size:
        return
    at = tuple(int(i) for i in np.unravel_index(int(ratio.argmax()), ratio.shape))
    verdict.ratio = float(ratio[at])
    batch, query, head, channel = at
    verdict.worst = (
        f"batch {batch}, query {query}, head {head}, channel {channel}:"
        f" {found[at]:.9g}, float64 has {expected[at]:.9g}, tolerance {allowed[at]:.3g}"
    )
    if not verdict.ratio <= 1:
        amount = f"{verdict.ratio:.3g} times the tolerance" if math.isfinite(verdict.ratio) else "tolerance 0"
        count = int((~(ratio <= 1)).sum())
        verdict.wrong.append(f"{count} of {ratio.size} results are off, the worst ({amount}) at {verdict.worst}")


def _need(case: DumpCase, name: str) -> NDArray[Any]:
    if name not in case.tensors:
        raise ValueError(f"there is no tensor '{name}'")
    return case.tensors[name]


def _mask(case: DumpCase, name: str, n_q: int, n_tokens: int) -> NDArray[np.float64] | None:
    if name not in case.tensors:
        return None
    mask = _double(case.tensors[name])
    if mask.shape[2] < n_q or mask.shape[3] != n_tokens:
        raise ValueError(f"{name} has the shape {mask.shape} for {n_q} queries and {n_tokens} tokens")
    return mask


def _double(data: NDArray[Any]) -> NDArray[np.float64]:
    return data.astype(np.float64)


def _bits(values: NDArray[np.float16]) -> NDArray[np.uint16]:
    return np.ascontiguousarray(values).view(np.uint16)
