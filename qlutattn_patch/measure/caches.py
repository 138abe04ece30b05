"""The notation of KV caches: `q8_0`, `K4V2`, `K4` (keys alone), `V4`, `K4V4+w512+s128` (window and sink)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.templates.formats import F16_BITS, QuantType

# Bits per value of the types that llama.cpp's own cache takes.
UPSTREAM = {
    "f32": 32.0,
    "f16": float(F16_BITS),
    "bf16": 16.0,
    "q8_0": 8.5,
    "q5_1": 6.0,
    "q5_0": 5.5,
    "q4_1": 5.0,
    "q4_0": 4.5,
    "iq4_nl": 4.5,
}
JUDGED = "q8_0,q5_0,q4_0,K8V8,K4V4,K4V2,K2V2,K2V1,K1V1"  # the default of eval
_OURS = re.compile(r"(?:K(?P<k>\d[a-z]*))?(?:V(?P<v>\d[a-z]*))?(?:\+w(?P<window>\d+))?(?:\+s(?P<sink>\d+))?")


@dataclass(frozen=True)
class Cache:
    """A type for keys, one for values, and how many tokens stay f16 beside packed ones (None: the tool's default)."""

    name: str
    type_k: str
    type_v: str
    bpw: float
    window: int | None = None
    sink: int | None = None

    @property
    def arguments(self) -> list[str]:
        """The cache as arguments of llama.cpp's tools."""
        kept = (("--kv-window", self.window), ("--kv-sink", self.sink))
        sizes = [word for name, size in kept if size is not None for word in (name, str(size))]
        return ["-ctk", self.type_k, "-ctv", self.type_v, *sizes]


def parse(
    text: str, types: Sequence[QuantType], window: int | None = None, sink: int | None = None
) -> tuple[Cache, ...]:
    """The caches of a list; `window` and `sink` apply to packed caches that state none."""
    names = [name.strip() for name in text.split(",")]
    caches = tuple(dict.fromkeys(_parse(name, types, window, sink) for name in names if name))
    if not caches:
        raise ExpectedError("--types names no cache.", "--types q8_0,K4V4")
    return caches


def _parse(name: str, types: Sequence[QuantType], window: int | None, sink: int | None) -> Cache:
    if name in UPSTREAM:
        return Cache(name, name, name, UPSTREAM[name])
    found = _OURS.fullmatch(name)
    known = {(kind.side, kind.label[1:]): kind for kind in types}
    sides = {side: found[side] for side in ("k", "v") if found and found[side]}
    if found is None or not sides or any(pair not in known for pair in sides.items()):
        raise ExpectedError(
            f"--types needs {', '.join(UPSTREAM)}, or names such as K4V2, K4, V4 and K4V4+w512+s128, not '{name}'.",
            "qlutattn types, to list the packed types",
        )
    kinds = {side: known[pair] for side, pair in zip(sides, sides.items(), strict=True)}
    stated = {part: int(found[part]) if found[part] else None for part in ("window", "sink")}
    return Cache(
        name=name,
        type_k=kinds["k"].name if "k" in kinds else "f16",
        type_v=kinds["v"].name if "v" in kinds else "f16",
        bpw=sum(kinds[side].bpw if side in kinds else F16_BITS for side in ("k", "v")) / 2,
        window=window if stated["window"] is None else stated["window"],
        sink=sink if stated["sink"] is None else stated["sink"],
    )
