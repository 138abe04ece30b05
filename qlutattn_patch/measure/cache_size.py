"""What a KV cache takes, computed as llama.cpp and the mixed cache allocate it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qlutattn_patch.measure.attention_layers import Layer, Model
from qlutattn_patch.measure.caches import Cache
from qlutattn_patch.templates.formats import F16_BITS, QuantType

CONTEXT_STEP = 256  # a sequence's part of a context is a multiple of it
WINDOW, SINK = 256, 128  # the defaults of llama-qlutattn.h
UBATCH = 512
SERVER_SLOTS = 4  # of llama-server, in one cache, where -np is not given
_HEAD_STEP = 64  # heads are padded to a multiple
_MAX_HEAD = 640  # of ggml_flash_attn_ext_mixed
_F16 = F16_BITS // 8
_BLOCK = 32  # values of llama.cpp's own quantised types


@dataclass(frozen=True)
class Context:
    """A context as llama.cpp makes it of -c, -np, --kv-unified and -ub."""

    tokens: int
    sequences: int
    unified: bool
    ubatch: int

    @property
    def per_sequence(self) -> int:
        """The tokens that a sequence has room for; in a unified cache, all of them."""
        rounded = _padded(self.tokens, CONTEXT_STEP)
        return rounded if self.unified else _padded(rounded // self.sequences, CONTEXT_STEP)

    @property
    def streams(self) -> int:
        return 1 if self.unified else self.sequences

    @property
    def step(self) -> int:
        """The tokens that are computed at once."""
        return min(self.ubatch, self.tokens)


@dataclass(frozen=True)
class Size:
    """The bytes of a cache; or why llama.cpp refuses it."""

    f16: int = 0  # f16 cells beside tiles, and layers with a sliding window
    packed: int = 0
    whole: int = 0  # of an unpacked cache of one type
    cells: int = 0  # f16 cells of a stream
    tiles: int = 0  # of a stream
    refused: str | None = None
    note: str | None = None

    @property
    def total(self) -> int:
        return self.f16 + self.packed + self.whole


def size_of(model: Model, cache: Cache, context: Context, types: Sequence[QuantType]) -> Size:
    """What a cache of this model takes in such a context."""
    packed = {kind.name: kind for kind in types}
    if not {cache.type_k, cache.type_v} & packed.keys():
        return _unpacked(model, cache, context)
    window = WINDOW if cache.window is None else cache.window
    sink = SINK if cache.sink is None else cache.sink
    return _Mixed(model, packed.get(cache.type_k), packed.get(cache.type_v), context, window, sink).size()


def _unpacked(model: Model, cache: Cache, context: Context) -> Size:
    """A cache of llama.cpp's own."""
    if cache.bpw < F16_BITS:
        if model.arch == "grok":
            return Size(refused=f"Grok models run without flash attention, which {cache.name} needs")
        for layer in model.layers:
            odd = next((size for size in (layer.head_k, layer.head_v) if size % _BLOCK), None)
            if odd:
                return Size(refused=f"{cache.name} needs heads of a multiple of {_BLOCK} channels, not {odd}")
    values = sum(_values(model, layer) * _cells(model, layer, context) for layer in model.layers) * context.streams
    return Size(whole=round(values * cache.bpw / 8))


def _values(model: Model, layer: Layer) -> int:
    """The values that a token has in a layer."""
    return layer.heads * (layer.head_k + (0 if model.latent else layer.head_v))


def _cells(model: Model, layer: Layer, context: Context) -> int:
    """The tokens that a layer's part of a stream has room for."""
    if not layer.windowed:
        return context.per_sequence
    kept = model.window * (context.sequences if context.unified else 1) + context.step
    return _padded(min(context.per_sequence, kept), CONTEXT_STEP)


@dataclass(frozen=True)
class _Mixed:
    """A cache with f16 cells and tiles."""

    model: Model
    k: QuantType | None  # None: f16
    v: QuantType | None
    context: Context
    window: int
    sink: int

    def size(self) -> Size:
        layers = [layer for layer in self.model.layers if not layer.windowed]
        plain = sum(_values(self.model, layer) for layer in layers) * _F16
        f16 = sum(self._row(layer, None, None) for layer in layers)
        packed = sum(self._row(layer, self.k, self.v) for layer in layers)
        if why := self._refusal(layers, plain, packed):
            return Size(refused=why)
        windowed = [layer for layer in self.model.layers if layer.windowed]
        short = sum(_values(self.model, one) * _cells(self.model, one, self.context) for one in windowed) * _F16
        cells, tiles = self._layout(f16 / plain, packed / plain)
        note = None if tiles else "all tokens stay in f16: packed ones would not make so short a context smaller"
        if not tiles and f16 > plain:  # llama.cpp's own cache, which does not pad heads
            return Size(whole=(plain * self.context.per_sequence + short) * self.context.streams, note=note)
        return Size(
            f16=(f16 * cells + short) * self.context.streams,
            packed=packed * tiles * self._tile * self.context.streams,
            cells=cells,
            tiles=tiles,
            note=note,
        )

    @property
    def _tile(self) -> int:
        """The tokens of a tile."""
        kind = self.k or self.v
        assert kind is not None
        return kind.tile.pack_size

    def _layout(self, f16: float, packed: float) -> tuple[int, int]:
        """f16 cells and tiles of a stream, as `llama_kv_mixed_layout::make`; sizes of a token in units of plain f16."""
        room = self.context.per_sequence
        shared = self.context.sequences if self.context.unified else 1
        kept = min(room, self.sink + self.window + self._tile) * shared
        cells = _padded(min(room, kept + self.context.step), self._tile)
        tiles = room // self._tile
        if self.sink + self.window >= room or f16 * cells + packed * tiles * self._tile >= room:
            return _padded(room, self._tile), 0
        return cells, tiles

    def _row(self, layer: Layer, k: QuantType | None, v: QuantType | None) -> int:
        """The bytes that a token takes in a layer, with padded heads and whole tiles."""
        sides = [(k, layer.head_k)] if self.model.latent else [(k, layer.head_k), (v, layer.head_v)]
        return sum(self._side(layer.heads * _padded(size, _HEAD_STEP), kind) for kind, size in sides)

    def _side(self, channels: int, kind: QuantType | None) -> int:
        if kind is None:
            return channels * _F16
        return _padded(channels, self._tile) // self._tile * kind.tile_bytes // self._tile

    def _refusal(self, layers: Sequence[Layer], plain: int, packed: int) -> str | None:
        if self.model.arch == "grok":
            return "Grok models run without flash attention, which packed caches need"
        if not layers:
            return "every layer has a sliding window, which is kept in f16"
        largest = max(max(layer.head_k, layer.head_v) for layer in layers)
        if largest > _MAX_HEAD:
            return f"packed caches need heads of at most {_MAX_HEAD} channels, not {largest}"
        if packed >= plain:
            return f"packed, a token would take {packed} bytes instead of {plain}"
        if self.model.arch in ("t5", "t5encoder") and self.context.sequences > 1 and not self.context.unified:
            return "the sequences of an encoder-decoder model need one cache: --kv-unified"
        return None


def _padded(number: int, step: int) -> int:
    return -(-number // step) * step
