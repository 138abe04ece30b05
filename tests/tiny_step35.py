"""A small Step 3.5 model with random weights, without experts: two layers, one with a window, and three draft heads.

The heads, which take turns in drafting, repeat the first layer.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from tiny_models import Drawer, add_tokenizer

N_LAYER = 2
N_DRAFT = 3
N_EMBD = 256
N_FF = 256
N_HEAD = 4
N_HEAD_KV = 2
HEAD_DIM = 64
N_SWA = 64


def write_step35(path: Path, seed: int = 0) -> Path:
    """Write a model; the same seed gives the same bytes."""
    writer = gguf.GGUFWriter(path, "step35")
    writer.add_name("tiny-step35")
    writer.add_context_length(65536)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(N_LAYER + N_DRAFT)
    writer.add_nextn_predict_layers(N_DRAFT)
    writer.add_feed_forward_length(N_FF)
    writer.add_expert_feed_forward_length(N_FF)  # asked for, though there are no experts
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD_KV)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_sliding_window(N_SWA)
    writer.add_sliding_window_pattern([layer == 1 for layer in range(N_LAYER + N_DRAFT)])
    n_vocab = add_tokenizer(writer)
    draw = Drawer(writer, np.random.default_rng(seed))
    draw.matrix("token_embd", n_vocab, N_EMBD, gain=8.0)
    draw.norm("output_norm", N_EMBD)
    draw.matrix("output", n_vocab, N_EMBD, gain=2.0)
    for layer in range(N_LAYER):
        add_layer(draw, f"blk.{layer}")
    for head in range(N_LAYER, N_LAYER + N_DRAFT):
        for tensor, data in list(draw.drawn.items()):
            if tensor.startswith("blk.0."):
                draw.add(tensor.replace("blk.0.", f"blk.{head}.", 1), data)
        draw.norm(f"blk.{head}.nextn.enorm", N_EMBD, 0.5)
        draw.norm(f"blk.{head}.nextn.hnorm", N_EMBD)
        draw.add(f"blk.{head}.nextn.eh_proj.weight", np.eye(N_EMBD, 2 * N_EMBD, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_layer(draw: Drawer, block: str) -> None:
    """Draw the weights of a layer; the second one is weak, since draft heads do not know of it."""
    gain = 0.1 if block == "blk.1" else 1.0
    draw.norm(f"{block}.attn_norm", N_EMBD)
    draw.matrix(f"{block}.attn_q", N_HEAD * HEAD_DIM, N_EMBD, gain=2.0)
    draw.matrix(f"{block}.attn_k", N_HEAD_KV * HEAD_DIM, N_EMBD)
    draw.matrix(f"{block}.attn_v", N_HEAD_KV * HEAD_DIM, N_EMBD)
    draw.matrix(f"{block}.attn_output", N_EMBD, N_HEAD * HEAD_DIM, gain=2.0 * gain)
    draw.norm(f"{block}.ffn_norm", N_EMBD)
    draw.matrix(f"{block}.ffn_gate", N_FF, N_EMBD)
    draw.matrix(f"{block}.ffn_up", N_FF, N_EMBD)
    draw.matrix(f"{block}.ffn_down", N_EMBD, N_FF, gain=0.5 * gain)
