"""Small models that make keys and values from one latent row per token, with random weights, as tiny_models.

minicpm3 makes keys and values of all heads before it caches them: keys have more channels than values.
deepseek2 caches the row itself (MLA): it is the only head of keys, and its first channels are the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from tiny_models import Drawer, add_tokenizer

N_LAYER = 2
N_EMBD = 256
N_FF = 256
N_HEAD = 4
N_LORA_Q = 128
N_NOPE = 64


@dataclass(frozen=True)
class Latent:
    """A model of this kind."""

    arch: str = "minicpm3"
    head_dim_v: int = 64
    n_latent: int = 128
    n_rope: int = 32

    @property
    def is_mla(self) -> bool:
        return self.arch == "deepseek2"


def write_latent(path: Path, shape: Latent, seed: int = 0) -> Path:
    """Write a model; the same seed gives the same bytes."""
    writer = gguf.GGUFWriter(path, shape.arch)
    writer.add_name(f"tiny-{shape.arch}")
    writer.add_context_length(65536)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(N_LAYER)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_rope_dimension_count(shape.n_rope)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_q_lora_rank(N_LORA_Q)
    writer.add_kv_lora_rank(shape.n_latent)
    add_heads(writer, shape)
    n_vocab = add_tokenizer(writer)
    add_weights(Drawer(writer, np.random.default_rng(seed)), shape, n_vocab)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_heads(writer: gguf.GGUFWriter, shape: Latent) -> None:
    """Write what the heads of keys and values are."""
    if not shape.is_mla:
        writer.add_head_count_kv(N_HEAD)
        writer.add_key_length(N_NOPE + shape.n_rope)
        writer.add_value_length(shape.head_dim_v)
        return
    writer.add_head_count_kv(1)
    writer.add_key_length(shape.n_latent + shape.n_rope)
    writer.add_value_length(shape.n_latent)
    writer.add_key_length_mla(N_NOPE + shape.n_rope)
    writer.add_value_length_mla(shape.head_dim_v)
    writer.add_leading_dense_block_count(N_LAYER)  # no experts, but their number is asked for
    writer.add_expert_feed_forward_length(N_FF)
    writer.add_expert_shared_count(0)


def add_weights(draw: Drawer, shape: Latent, n_vocab: int) -> None:
    """Draw the weights."""
    scale = 1 if shape.is_mla else 1 / 12  # by which the model multiplies them
    draw.matrix("token_embd", n_vocab, N_EMBD, gain=float(np.sqrt(N_EMBD)) * 0.5 * scale)
    draw.norm("output_norm", N_EMBD)
    draw.matrix("output", n_vocab, N_EMBD, gain=2.0)
    for layer in range(N_LAYER):
        block = f"blk.{layer}"
        draw.norm(f"{block}.attn_norm", N_EMBD)
        draw.matrix(f"{block}.attn_q_a", N_LORA_Q, N_EMBD)
        draw.norm(f"{block}.attn_q_a_norm", N_LORA_Q)
        draw.matrix(f"{block}.attn_q_b", N_HEAD * (N_NOPE + shape.n_rope), N_LORA_Q, gain=2.0)
        draw.matrix(f"{block}.attn_kv_a_mqa", shape.n_latent + shape.n_rope, N_EMBD)
        draw.norm(f"{block}.attn_kv_a_norm", shape.n_latent)
        if shape.is_mla:
            draw.matrices(f"{block}.attn_k_b", N_HEAD, shape.n_latent, N_NOPE, 1 / np.sqrt(shape.n_latent))
            draw.matrices(f"{block}.attn_v_b", N_HEAD, shape.head_dim_v, shape.n_latent, 1 / np.sqrt(shape.n_latent))
        else:
            draw.matrix(f"{block}.attn_kv_b", N_HEAD * (N_NOPE + shape.head_dim_v), shape.n_latent)
        draw.matrix(f"{block}.attn_output", N_EMBD, N_HEAD * shape.head_dim_v, gain=2.0)
        draw.norm(f"{block}.ffn_norm", N_EMBD)
        draw.matrix(f"{block}.ffn_gate", N_FF, N_EMBD)
        draw.matrix(f"{block}.ffn_up", N_FF, N_EMBD)
        draw.matrix(f"{block}.ffn_down", N_EMBD, N_FF, gain=0.5)
