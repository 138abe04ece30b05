"""The attention layers of a model, from its GGUF metadata, as llama.cpp reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qlutattn_patch.measure.gguf_header import Header
from qlutattn_patch.system.errors import ExpectedError

_HERE = "start llama.cpp with it, which prints the size of its cache"
# Models whose caches are of another kind than keys and values of each layer; and drafts that depend on their target.
_INDEXED = frozenset(
    ("deepseek32", "deepseek4", "dots3note", "glm-dsa", "glm5-next", "hy_v4", "minimax-m3", "qwen4exp")
)
_DRAFTS = frozenset(("dflash", "eagle3", "gemma4-assistant", "granite-switch"))
_UNCACHED = frozenset(
    (
        *("bert", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert"),
        *("nomic-bert", "nomic-bert-moe", "wavtokenizer-dec", "dream", "llada", "llada-moe", "rnd1"),
        *("mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"),
    )
)
# Hybrid models: which layers are recurrent is said by a pattern, or by a layer without heads for keys and values.
_BY_INTERVAL = frozenset(("qwen3next", "qwen35", "qwen35moe", "minimax-01"))
_BY_HEADS = frozenset(("jamba", "plamo2", "granitehybrid", "lfm2", "lfm2moe", "kimi-linear", "kimi-k3", "bailingmoe3"))
_NEMOTRON = frozenset(("nemotron_h", "nemotron_h_moe"))
_HYBRID = _BY_INTERVAL | _BY_HEADS | _NEMOTRON | {"falcon-h1"}
# The period of layers that see all tokens where the file does not say; with True, the first of a period sees them.
_PERIODS = {
    **dict.fromkeys(("afmoe", "cohere2", "exaone-moe", "exaone4", "llama4", "mellum"), (4, False)),
    **dict.fromkeys(("muse-glimmer", "olmo2"), (4, False)),
    **dict.fromkeys(("cohere2moe", "laguna", "smallthinker"), (4, True)),
    **{"gemma2": (2, False), "gemma3": (6, False), "gemma3n": (5, False), "gpt-oss": (2, False), "plamo3": (8, False)},
}
# These say for each layer whether it has a window.
_LISTED = frozenset(("gemma4", "granite_swa", "maple", "mimo2", "spark2_5", "step35"))
_FIXED_WINDOWS = {"llama4": 8192, "smallthinker": 4096}
_DEFAULT_WINDOWS = {"gemma2": 4096, "exaone-moe": 128, "exaone4": 4096}
_MOST_LAYERS = 512  # LLAMA_MAX_LAYERS
_GEMMA3N_LAYERS = 20  # with keys and values of their own
_EXAONE4_WINDOWED = 64  # the only number of layers with which it has windows


@dataclass(frozen=True)
class Layer:
    """The keys and values of a layer: heads, their channels, and whether it sees a sliding window only."""

    heads: int
    head_k: int
    head_v: int
    windowed: bool = False


@dataclass(frozen=True)
class Model:
    """What the caches of a model depend on."""

    name: str
    arch: str
    layers: tuple[Layer, ...]  # those with keys and values
    n_layer: int  # all of them
    window: int  # tokens of the sliding window, 0 without one
    latent: bool  # whether values are channels of the keys
    trained: int  # the context that it was trained with

    @property
    def described(self) -> str:
        """The model in a few words."""
        shapes = {(layer.heads, layer.head_k, layer.head_v) for layer in self.layers}
        heads = ", ".join(
            f"{h} KV head{'s' if h > 1 else ''} of {k}{'' if k == v else f' and {v}'}" for h, k, v in sorted(shapes)
        )
        windowed = sum(layer.windowed for layer in self.layers)
        cached = f", {len(self.layers)} with keys and values" if len(self.layers) < self.n_layer else ""
        short = f", {windowed} with a window of {self.window}" if windowed else ""
        return f"{self.name} ({self.arch}, {self.n_layer} layers{cached}{short}, {heads})"


def read_model(header: Header, name: str) -> Model:
    """The layers that a file's metadata describes."""
    return _Metadata(header, name).model()


class _Metadata:
    """Metadata by llama.cpp's names, and its rules for what is left out."""

    def __init__(self, header: Header, name: str) -> None:
        self._header = header
        self._name = name
        self.arch = str(header.get("general.architecture", ""))
        if not self.arch or self.arch == "clip":
            raise ExpectedError(f"{name} is no language model.", "name a model's own GGUF file, not a projector's")
        if self.arch in _UNCACHED:
            raise ExpectedError(f"{name} ({self.arch}) keeps no keys and values: it has no cache to size.")
        if self.arch in _INDEXED | _DRAFTS:
            raise ExpectedError(f"{name} ({self.arch}) has a cache that only llama.cpp knows the size of.", _HERE)
        self.n_layer_all = self._need("block_count") * self._number("num_loops", 1)
        if self.n_layer_all > _MOST_LAYERS:
            raise self._damaged(f"{self.n_layer_all} layers are more than llama.cpp takes")
        self.n_layer = self.n_layer_all - self._number("nextn_predict_layers", 0)

    def model(self) -> Model:
        window, windowed = self._windows()
        recurrent = self._recurrent()
        heads = self._per_layer("attention.head_count", 0)
        kv_heads = self._per_layer("attention.head_count_kv", heads)
        full, short = self._head_sizes(heads[0])
        latent = self._number("attention.key_length_mla", 0) > 0
        layers = [
            Layer(kv_heads[i], *(short if windowed[i] else full), windowed[i])
            for i in range(self._behind())
            if not recurrent[i]
        ]
        cached = tuple(layer for layer in layers if layer.heads)
        if not cached:
            raise ExpectedError(f"{self._name} ({self.arch}) has no layer with keys and values.")
        if min(min(layer.heads, layer.head_k, layer.head_v) for layer in cached) < 1:
            raise self._damaged("a layer has heads without channels")
        named = str(self._header.get("general.name") or self._name)
        trained = self._number("context_length", 0)
        return Model(named, self.arch, cached, self.n_layer, window, latent, trained)

    def _behind(self) -> int:
        """The number of the first layer without keys and values of its own."""
        if self.arch == "gemma3n":
            return _GEMMA3N_LAYERS
        if self.arch == "gemma4":
            return self.n_layer_all - self._number("attention.shared_kv_layers", 0)
        # heads of drafts have a context of their own, but in some hybrid models they are cached beside the others
        return self.n_layer_all if self.arch in _HYBRID - _BY_INTERVAL else self.n_layer

    def _head_sizes(self, n_head: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """The channels of a head of K and V, in layers that see all tokens and in those with a window."""
        default = self._need("embedding_length") // n_head if n_head else 0
        key = self._number("attention.key_length", default)
        value = self._number("attention.value_length", default)
        if self.arch == "kimi-k3":
            value = self._need("attention.kv_lora_rank")
        return (key, value), (
            self._number("attention.key_length_swa", key),
            self._number("attention.value_length_swa", value),
        )

    def _windows(self) -> tuple[int, list[bool]]:
        """The tokens of the sliding window, and which layers have it."""
        size = _FIXED_WINDOWS.get(self.arch) or self._number(
            "attention.sliding_window", _DEFAULT_WINDOWS.get(self.arch, 0)
        )
        given = self._number("attention.sliding_window", -1)
        none = [False] * self.n_layer_all
        if self.arch == "lfm2" and size:
            return size, [not recurrent for recurrent in self._recurrent()]
        if self.arch == "exaone4" and self.n_layer != _EXAONE4_WINDOWED:
            return 0, none
        if self.arch not in _PERIODS.keys() | _LISTED or given == 0 or not size:
            return 0, none
        if self.arch == "smallthinker" and given < 0:
            return 0, none
        pattern = self._header.get(f"{self.arch}.attention.sliding_window_pattern")
        if isinstance(pattern, tuple):
            return size, [bool(one) for one in (*pattern, *none)[: self.n_layer_all]]
        if self.arch in _LISTED:
            raise ExpectedError(f"{self._name}: its metadata does not say which layers have a window.", _HERE)
        period, first = _PERIODS[self.arch]
        period = pattern if isinstance(pattern, int) else period
        dense = 0 if first else period - 1
        return size, [i < self.n_layer and (period == 0 or i % period != dense) for i in range(self.n_layer_all)]

    def _recurrent(self) -> list[bool]:
        """Which layers have a recurrent state instead of keys and values."""
        heads = self._per_layer("attention.head_count_kv", [1] * self.n_layer_all)
        if self.arch in _BY_INTERVAL:
            listed = self._header.get(f"{self.arch}.attention.recurrent_layers")
            if isinstance(listed, tuple):
                return [bool(one) for one in (*listed, *[False] * self.n_layer_all)[: self.n_layer_all]]
            interval = max(self._number("full_attention_interval", 8 if self.arch == "minimax-01" else 4), 1)
            return [i < self.n_layer and (i + 1) % interval != 0 for i in range(self.n_layer_all)]
        if self.arch in _NEMOTRON:
            feed_forward = self._per_layer("feed_forward_length", [0] * self.n_layer_all)
            return [heads[i] == 0 or feed_forward[i] > 0 for i in range(self.n_layer_all)]
        return [self.arch in _BY_HEADS and heads[i] == 0 for i in range(self.n_layer_all)]

    def _damaged(self, what: str) -> ExpectedError:
        return ExpectedError(f"{self._name} is damaged: {what}.", "download or convert it again")

    def _number(self, key: str, default: int) -> int:
        value = self._header.get(f"{self.arch}.{key}", default)
        return int(value) if isinstance(value, int | float) else default

    def _need(self, key: str) -> int:
        value = self._number(key, 0)
        if value <= 0:
            raise self._damaged(f"its metadata has no {self.arch}.{key}")
        return value

    def _per_layer(self, key: str, default: int | Sequence[int]) -> list[int]:
        """A number for each layer, from one for all or a list."""
        value = self._header.get(f"{self.arch}.{key}", default)
        if isinstance(value, int | float):
            return [int(value)] * self.n_layer_all
        if isinstance(value, str):
            raise self._damaged(f"{self.arch}.{key} is no number")
        numbers = [int(one) for one in value]
        loops = -(-self.n_layer_all // max(len(numbers), 1))  # layers that are run several times
        return (numbers * loops or [0] * self.n_layer_all)[: self.n_layer_all]
