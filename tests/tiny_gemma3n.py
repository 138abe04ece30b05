"""A small Gemma 3n model with random weights: its last five layers use the keys and values of others."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from tiny_models import Drawer, add_tokenizer

N_LAYER = 25  # llama.cpp knows that 20 of them have keys and values of their own; every fifth sees all tokens
N_EMBD = 128
N_FF = 128
N_HEAD = 2
HEAD_DIM = 128
N_SWA = 64
# these are fixed in llama.cpp
N_ALTUP = 4  # streams of embeddings
N_EMBD_ALTUP = 256
LAUREL_RANK = 64


def write_gemma3n(path: Path, seed: int = 0) -> Path:
    """Write a model; the same seed gives the same bytes."""
    writer = gguf.GGUFWriter(path, "gemma3n")
    writer.add_name("tiny-gemma3n")
    writer.add_context_length(65536)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(N_LAYER)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(1)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_sliding_window(N_SWA)
    n_vocab = add_tokenizer(writer)
    draw = Drawer(writer, np.random.default_rng(seed))
    draw.matrix("token_embd", n_vocab, N_EMBD)
    draw.norm("output_norm", N_EMBD)
    draw.matrix("output", n_vocab, N_EMBD, gain=2.0)
    draw.matrices("altup_proj", N_ALTUP - 1, N_EMBD, N_EMBD, N_EMBD**-0.5)
    draw.matrices("altup_unembd_proj", N_ALTUP - 1, N_EMBD, N_EMBD, N_EMBD**-0.5)
    draw.matrix("per_layer_token_embd", n_vocab, N_EMBD_ALTUP * N_LAYER)
    draw.matrix("per_layer_model_proj", N_EMBD_ALTUP * N_LAYER, N_EMBD)
    draw.norm("per_layer_proj_norm", N_EMBD_ALTUP)
    for layer in range(N_LAYER):
        add_attention(draw, f"blk.{layer}")
        add_rest(draw, f"blk.{layer}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_attention(draw: Drawer, block: str) -> None:
    """Draw the weights of attention, whose scores are not divided by anything."""
    draw.norm(f"{block}.attn_norm", N_EMBD)
    draw.matrix(f"{block}.attn_q", N_HEAD * HEAD_DIM, N_EMBD)
    draw.matrix(f"{block}.attn_k", HEAD_DIM, N_EMBD)
    draw.matrix(f"{block}.attn_v", HEAD_DIM, N_EMBD)
    draw.matrix(f"{block}.attn_output", N_EMBD, N_HEAD * HEAD_DIM)
    draw.norm(f"{block}.attn_q_norm", HEAD_DIM, 2.0 / HEAD_DIM**0.5)
    draw.norm(f"{block}.attn_k_norm", HEAD_DIM)
    draw.norm(f"{block}.post_attention_norm", N_EMBD)


def add_rest(draw: Drawer, block: str) -> None:
    """Draw the other weights of a layer; what they add is weak beside attention."""
    weak = 0.1
    draw.norm(f"{block}.ffn_norm", N_EMBD)
    draw.matrix(f"{block}.ffn_gate", N_FF, N_EMBD)
    draw.matrix(f"{block}.ffn_up", N_FF, N_EMBD)
    draw.matrix(f"{block}.ffn_down", N_EMBD, N_FF)
    draw.norm(f"{block}.post_ffw_norm", N_EMBD, weak)
    draw.matrix(f"{block}.inp_gate", N_EMBD_ALTUP, N_EMBD)
    draw.matrix(f"{block}.proj", N_EMBD, N_EMBD_ALTUP)
    draw.norm(f"{block}.post_norm", N_EMBD, weak)
    draw.matrix(f"{block}.altup_correct_coef", N_ALTUP, N_ALTUP, weak)
    draw.constant(f"{block}.altup_correct_scale.weight", (N_EMBD,), 1.0)
    draw.matrix(f"{block}.altup_predict_coef", N_ALTUP * N_ALTUP, N_ALTUP, weak)
    draw.matrix(f"{block}.altup_router", N_ALTUP, N_EMBD)
    draw.norm(f"{block}.altup_router_norm", N_EMBD)
    draw.matrix(f"{block}.laurel_l", LAUREL_RANK, N_EMBD)
    draw.matrix(f"{block}.laurel_r", N_EMBD, LAUREL_RANK)
    draw.norm(f"{block}.laurel_post_norm", N_EMBD, weak)
