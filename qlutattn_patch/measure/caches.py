"""The notation of KV caches: `q8_0`, `K4V2`, `K4` (keys alone), `V4`, `K4V4+w512+s128` (window and sink).

`f16+int8` and `K4V4+int8` attend to what is f16 in 8 bits; `+int8@0` does so without smoothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from qlutattn_patch.system.errors import UsageError
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
TIMED = ("f16", "q8_0", "q4_0")  # llama.cpp's types that bench_attn times
JUDGED = "q8_0,q5_0,q4_0,K8V8,K4V4,K4V2,K2V2,K2V1,K1V1"  # the default of eval
SIZED = "f16,q8_0,q4_0,K8V8,K4V4,K4V2,K2V2,K1V1"  # the default of size
_TIMED_EXAMPLES = "f16, q8_0, q4_0, K4V2, K4V4+w512 (a multiple of 128), w512, K4V4+q3 and f16+int8"
_TIMED_PARTS = re.compile(r"(.*?)(?:(?:^|\+)w([1-9]\d{0,5}))?(?:\+q([1-9]|1[0-5]))?(\+int8)?")
_OURS = re.compile(r"(?:K(?P<k>\d[a-z]*))?(?:V(?P<v>\d[a-z]*))?(?:\+w(?P<window>\d+))?(?:\+s(?P<sink>\d+))?")
_INT8 = re.compile(r"(.+?)\+int8(?:@(0|1|0?\.\d+))?")


@dataclass(frozen=True)
class Cache:
    """A type for keys, one for values, and how many tokens stay f16 beside packed ones (None: the tool's default)."""

    name: str
    type_k: str
    type_v: str
    bpw: float
    window: int | None = None
    sink: int | None = None
    smoothing: float | None = None  # of attention in 8 bits; None: f16

    @property
    def arguments(self) -> list[str]:
        """The cache as arguments of llama.cpp's tools."""
        kept = (("--kv-window", self.window), ("--kv-sink", self.sink))
        sizes = [word for name, size in kept if size is not None for word in (name, str(size))]
        int8 = [] if self.smoothing is None else ["--attn-int8", "--attn-int8-smoothing", f"{self.smoothing:g}"]
        return ["-ctk", self.type_k, "-ctv", self.type_v, *sizes, *int8]


def parse(
    text: str, types: Sequence[QuantType], window: int | None = None, sink: int | None = None
) -> tuple[Cache, ...]:
    """The caches of a list; `window` and `sink` apply to packed caches that state none."""
    names = [name.strip() for name in text.split(",")]
    caches = tuple(dict.fromkeys(_parse(name, types, window, sink) for name in names if name))
    if not caches:
        raise UsageError("--types names no cache.", "--types q8_0,K4V4")
    return caches


def check_timed(text: str, types: Sequence[QuantType]) -> None:
    """Refuse a list with a cache that bench_attn does not time."""
    keys, values = ([_side_name(kind) for kind in types if kind.side == side] for side in ("k", "v"))
    pairs = [key + value for key in keys for value in values]
    for name in (part.strip() for part in text.split(",")):
        pair, window, shifts, int8 = _TIMED_PARTS.fullmatch(name).groups()  # type: ignore[union-attr]
        is_pair = pair in pairs and (window is None or int(window) % types[0].tile.pack_size == 0)
        is_window = not pair and window is not None and shifts is None and not name.startswith("+")
        is_stock = name in TIMED or name == "f16+int8"
        if not is_stock and not ((is_pair or is_window) and (window or not int8)):
            raise _unknown(name, [*TIMED, *pairs], _TIMED_EXAMPLES)


def _side_name(kind: QuantType) -> str:
    """K4 or V4."""
    return kind.label[0].upper() + kind.label[1:]


def _unknown(name: str, known: Sequence[str], examples: str) -> UsageError:
    head, plus, more = name.partition("+")
    near = [*{word.upper(): word for word in known}.items()]
    found = get_close_matches(head.upper(), [upper for upper, _ in near], 1)
    meant = f"{dict(near)[found[0]]}{plus}{more}" if found else name
    hint = "qlutattn types, to list the packed types" if meant == name else f"did you mean {meant}?"
    return UsageError(f"--types: '{name}' is not a cache; names are such as {examples}.", hint)


def _parse(name: str, types: Sequence[QuantType], window: int | None, sink: int | None) -> Cache:
    int8 = _INT8.fullmatch(name)
    if int8 and "+int8" not in int8[1] and (int8[1] == "f16" or int8[1] not in UPSTREAM):
        cache = _parse(int8[1], types, window, sink)
        return replace(cache, name=name, smoothing=1.0 if int8[2] is None else float(int8[2]))
    if name in UPSTREAM:
        return Cache(name, name, name, UPSTREAM[name])
    found = _OURS.fullmatch(name)
    known = {(kind.side, kind.label[1:]): kind for kind in types}
    sides = {side: found[side] for side in ("k", "v") if found and found[side]}
    if found is None or not sides or any(pair not in known for pair in sides.items()):
        names = [_side_name(kind) for kind in types]
        pairs = [key + value for key in names for value in names if (key[0], value[0]) == ("K", "V")]
        raise _unknown(name, [*UPSTREAM, *names, *pairs], f"{', '.join(UPSTREAM)}, K4V2, K4, V4 and K4V4+w512+s128")
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
