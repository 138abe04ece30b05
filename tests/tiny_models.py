"""Small models with random weights: whole GGUF files of several architectures and head sizes, with a real tokenizer.

The weights are drawn so that attention matters: scores are spread widely enough for a few keys to win, and what
attention brings outweighs what a token brings itself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

ARCHITECTURES = (
    "llama",
    "qwen3",
    "gemma3",
    "qwen3vl",  # M-RoPE: tokens of an image have a position in two dimensions
    "refact",  # ALiBi: no positions in keys
    "gemma4",  # the last two of six layers use the keys and values of the two before
)

MERGES = 256
CORPUS = """\
The cache holds the keys and values of every token that came before. A tile is one hundred and twenty-eight tokens
wide, and its codes are read where they lie. The newest tokens stay in half precision, because they matter most; the
oldest are sinks, and they stay as well. When a tile has left the window it is packed: a scale and an offset for each
lane, and a code for each value. A model reads the text one token after another, and each token asks all of the
earlier ones what they know. Whoever writes a test should let it fail first.
def attend(query, keys, values):
    scores = [dot(query, key) for key in keys]
    weights = softmax(scores)
    return sum(weight * value for weight, value in zip(weights, values))
"""


@dataclass(frozen=True)
class Shape:
    """The size of a model."""

    arch: str = "llama"
    head_dim: int = 128
    n_head: int = 4
    n_head_kv: int = 2
    n_layer: int = 2
    n_embd: int = 256
    n_ff: int = 256
    n_ctx: int = 65536
    n_swa: int = 64  # of every second layer, gemma3 and gemma4 only; 0 for none

    @staticmethod
    def of(arch: str, head_dim: int) -> Shape:
        """A small model of an architecture."""
        return Shape(arch=arch, head_dim=head_dim, n_layer=6 if arch == "gemma4" else 2)


def byte_characters() -> list[str]:
    """The printable character that stands for each byte in GPT-2's vocabulary."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    spare = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(spare)) for byte in range(256)]


def train_merges(text: str, count: int) -> list[tuple[str, str]]:
    """The merges of a byte pair encoding of a text, most frequent pair first, words apart."""
    characters = byte_characters()
    pieces = text.replace("\n", " \n").replace(" ", "\0 ").split("\0")
    words = Counter(tuple(characters[byte] for byte in piece.encode()) for piece in pieces if piece)
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in words.items():
            for pair in pairwise(word):
                pairs[pair] += times
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = Counter({merged(word, best): times for word, times in words.items()})
    return merges


def merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """A word with every occurrence of a pair made one."""
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return tuple(out)


def add_tokenizer(writer: gguf.GGUFWriter, n_more: int = 0) -> int:
    """Write the tokenizer, with more tokens that no text has; the number of its tokens."""
    merges = train_merges(CORPUS, MERGES)
    pieces = list(dict.fromkeys([*byte_characters(), *("".join(pair) for pair in merges)]))
    pieces += [f"more{i}" for i in range(n_more)]
    special = ["<|end|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*pieces, *special])
    writer.add_token_types([gguf.TokenType.NORMAL] * len(pieces) + [gguf.TokenType.CONTROL] * len(special))
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(len(pieces))
    writer.add_eos_token_id(len(pieces))
    writer.add_add_bos_token(False)
    return len(pieces) + len(special)


def write_model(
    path: Path, shape: Shape | None = None, seed: int = 0, blur: float = 0, n_more: int = 0, half: bool = False
) -> Path:
    """Write a model of this shape, its matrices in half or in single precision; the same seed gives the same bytes.

    A blurred model, whose weights are off by a part of their spread, mostly says what the model says: a draft model.
    """
    shape = shape or Shape()
    if shape.arch not in ARCHITECTURES:
        raise ValueError(f"the architectures are {', '.join(ARCHITECTURES)}, not {shape.arch}")
    writer = gguf.GGUFWriter(path, shape.arch)
    writer.add_name(f"tiny-{shape.arch}-{shape.head_dim}")
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    add_extras(writer, shape)
    n_vocab = add_tokenizer(writer, n_more)
    add_weights(Drawer(writer, np.random.default_rng(seed), blur, half), shape, n_vocab)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_extras(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """Write the parameters that only some architectures have."""
    if shape.arch in ("gemma3", "gemma4") and shape.n_swa:
        writer.add_sliding_window(shape.n_swa)
        writer.add_rope_freq_base_swa(10000.0)
    if shape.arch == "gemma3" and shape.n_swa:
        writer.add_sliding_window_pattern(2)
    if shape.arch == "gemma4":
        writer.add_sliding_window_pattern([layer % 2 == 0 for layer in range(shape.n_layer)])
        writer.add_key_length_swa(shape.head_dim)
        writer.add_value_length_swa(shape.head_dim)
        writer.add_rope_dimension_count_swa(shape.head_dim)
        writer.add_shared_kv_layers(2)
        writer.add_embedding_length_per_layer_input(0)
        writer.add_tensor("rope_freqs.weight", np.ones(shape.head_dim // 2, dtype=np.float32))
    if shape.arch == "qwen3vl":
        quarter = shape.head_dim // 8
        writer.add_rope_dimension_sections([2 * quarter, quarter, quarter, 0])


class Drawer:
    """Draws the weights of a model and gives them to its writer."""

    def __init__(self, writer: gguf.GGUFWriter, rng: np.random.Generator, blur: float = 0, half: bool = False) -> None:
        self.writer = writer
        self.rng = rng
        self.blur = blur
        self.half = half
        self.noise = np.random.default_rng(1)
        self.drawn: dict[str, npt.NDArray[np.float32]] = {}

    def matrix(self, name: str, n_out: int, n_in: int, gain: float = 1.0) -> None:
        data: npt.NDArray[np.float32] = self.rng.standard_normal((n_out, n_in), dtype=np.float32)
        data += np.float32(self.blur) * self.noise.standard_normal((n_out, n_in), dtype=np.float32)
        self.add(f"{name}.weight", data * np.float32(gain / np.sqrt(n_in)))

    def matrices(self, name: str, n: int, n_out: int, n_in: int, scale: float) -> None:
        data: npt.NDArray[np.float32] = self.rng.standard_normal((n, n_out, n_in), dtype=np.float32)
        self.writer.add_tensor(f"{name}.weight", data * np.float32(scale))

    def norm(self, name: str, size: int, gain: float = 1.0) -> None:
        self.constant(f"{name}.weight", (size,), gain)

    def constant(self, name: str, shape: tuple[int, ...], value: float) -> None:
        self.add(name, np.full(shape, value, dtype=np.float32))

    def add(self, name: str, data: npt.NDArray[np.float32]) -> None:
        self.drawn[name] = data
        self.writer.add_tensor(name, data.astype(np.float16) if self.half and data.ndim == 2 else data)


def add_weights(draw: Drawer, shape: Shape, n_vocab: int) -> None:
    """Draw the weights."""
    matrix, norm = draw.matrix, draw.norm
    q_size, kv_size = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    # q . k / sqrt(head_dim) has this standard deviation
    spread = 2.0
    has_qk_norm = shape.arch in ("qwen3", "gemma3", "qwen3vl", "gemma4")
    matrix("token_embd", n_vocab, shape.n_embd, gain=float(np.sqrt(shape.n_embd)) * 0.5)
    norm("output_norm", shape.n_embd)
    matrix("output", n_vocab, shape.n_embd, gain=2.0)
    for layer in range(shape.n_layer):
        block = f"blk.{layer}"
        norm(f"{block}.attn_norm", shape.n_embd)
        matrix(f"{block}.attn_q", q_size, shape.n_embd, gain=spread)
        matrix(f"{block}.attn_k", kv_size, shape.n_embd)
        matrix(f"{block}.attn_v", kv_size, shape.n_embd)
        matrix(f"{block}.attn_output", shape.n_embd, q_size, gain=2.0)
        if has_qk_norm:
            # gemma4 does not divide scores by sqrt(head_dim)
            norm(
                f"{block}.attn_q_norm", shape.head_dim, spread / (shape.head_dim**0.5 if shape.arch == "gemma4" else 1)
            )
            norm(f"{block}.attn_k_norm", shape.head_dim)
        norm(f"{block}.ffn_norm", shape.n_embd)
        matrix(f"{block}.ffn_gate", shape.n_ff, shape.n_embd)
        matrix(f"{block}.ffn_up", shape.n_ff, shape.n_embd)
        matrix(f"{block}.ffn_down", shape.n_embd, shape.n_ff, gain=0.5)
        if shape.arch in ("gemma3", "gemma4"):
            norm(f"{block}.post_attention_norm", shape.n_embd, 2.0)
            norm(f"{block}.post_ffw_norm", shape.n_embd, 0.5)
