"""Small models that make keys and values from one latent row per token, with random weights, as tiny_models.

A minicpm3 makes keys and values of all heads before it caches them: keys have more channels than values.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from tiny_models import Drawer, add_tokenizer

N_LAYER = 2
N_EMBD = 256
N_FF = 256
N_HEAD = 4
N_LORA_Q = 128
N_LORA_KV = 128
N_ROPE = 32
N_NOPE = 64


def write_latent(path: Path, head_dim_v: int = 64, seed: int = 0) -> Path:
    """Write a minicpm3 with heads of 96 channels for keys; the same seed gives the same bytes."""
    writer = gguf.GGUFWriter(path, "minicpm3")
    writer.add_name("tiny-minicpm3")
    writer.add_context_length(65536)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(N_LAYER)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD)
    writer.add_key_length(N_NOPE + N_ROPE)
    writer.add_value_length(head_dim_v)
    writer.add_rope_dimension_count(N_ROPE)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_q_lora_rank(N_LORA_Q)
    writer.add_kv_lora_rank(N_LORA_KV)
    n_vocab = add_tokenizer(writer)

    draw = Drawer(writer, np.random.default_rng(seed))
    draw.matrix("token_embd", n_vocab, N_EMBD, gain=float(np.sqrt(N_EMBD)) * 0.04)  # the model multiplies it by 12
    draw.norm("output_norm", N_EMBD)
    draw.matrix("output", n_vocab, N_EMBD, gain=2.0)
    for layer in range(N_LAYER):
        block = f"blk.{layer}"
        draw.norm(f"{block}.attn_norm", N_EMBD)
        draw.matrix(f"{block}.attn_q_a", N_LORA_Q, N_EMBD)
        draw.norm(f"{block}.attn_q_a_norm", N_LORA_Q)
        draw.matrix(f"{block}.attn_q_b", N_HEAD * (N_NOPE + N_ROPE), N_LORA_Q, gain=2.0)
        draw.matrix(f"{block}.attn_kv_a_mqa", N_LORA_KV + N_ROPE, N_EMBD)
        draw.norm(f"{block}.attn_kv_a_norm", N_LORA_KV)
        draw.matrix(f"{block}.attn_kv_b", N_HEAD * (N_NOPE + head_dim_v), N_LORA_KV)
        draw.matrix(f"{block}.attn_output", N_EMBD, N_HEAD * head_dim_v, gain=2.0)
        draw.norm(f"{block}.ffn_norm", N_EMBD)
        draw.matrix(f"{block}.ffn_gate", N_FF, N_EMBD)
        draw.matrix(f"{block}.ffn_up", N_FF, N_EMBD)
        draw.matrix(f"{block}.ffn_down", N_EMBD, N_FF, gain=0.5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
