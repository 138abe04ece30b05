"""A small encoder-decoder model (T5) with random weights, as tiny_models: its heads add a bias to each score."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from tiny_models import Drawer, add_tokenizer

N_LAYER = 2
N_EMBD = 256
N_FF = 256
N_HEAD = 4
N_BUCKETS = 32


def write_t5(path: Path, head_dim: int = 64, seed: int = 0) -> Path:
    """Write a model; the same seed gives the same bytes."""
    writer = gguf.GGUFWriter(path, "t5")
    writer.add_name(f"tiny-t5-{head_dim}")
    writer.add_context_length(2048)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(N_LAYER)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_relative_attn_buckets_count(N_BUCKETS)
    n_vocab = add_tokenizer(writer)
    writer.add_decoder_start_token_id(0)
    add_weights(Drawer(writer, np.random.default_rng(seed)), head_dim, n_vocab)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_weights(draw: Drawer, head_dim: int, n_vocab: int) -> None:
    """Draw the weights of both halves."""
    draw.matrix("token_embd", n_vocab, N_EMBD, gain=float(np.sqrt(N_EMBD)) * 0.5)
    draw.matrix("output", n_vocab, N_EMBD, gain=2.0)
    for half in ("enc", "dec"):
        draw.norm(f"{half}.output_norm", N_EMBD)
        for layer in range(N_LAYER):
            block = f"{half}.blk.{layer}"
            add_attention(draw, f"{block}.attn", head_dim)
            if half == "dec":
                add_attention(draw, f"{block}.cross_attn", head_dim, gain=0.5)
            draw.norm(f"{block}.ffn_norm", N_EMBD)
            draw.matrix(f"{block}.ffn_gate", N_FF, N_EMBD)
            draw.matrix(f"{block}.ffn_up", N_FF, N_EMBD)
            draw.matrix(f"{block}.ffn_down", N_EMBD, N_FF, gain=0.5)
        # only the first layer has a bias, which the others use, too
        bias = draw.rng.standard_normal((N_BUCKETS, N_HEAD), dtype=np.float32)
        draw.add(f"{half}.blk.0.attn_rel_b.weight", bias * np.float32(2.0))


def add_attention(draw: Drawer, name: str, head_dim: int, gain: float = 2.0) -> None:
    """Draw the weights of an attention, whose scores are not divided by the root of the head size."""
    draw.norm(f"{name}_norm", N_EMBD)
    draw.matrix(f"{name}_q", N_HEAD * head_dim, N_EMBD, gain=2.0 / float(np.sqrt(head_dim)))
    draw.matrix(f"{name}_k", N_HEAD * head_dim, N_EMBD)
    draw.matrix(f"{name}_v", N_HEAD * head_dim, N_EMBD)
    draw.matrix(f"{name}_o", N_EMBD, N_HEAD * head_dim, gain=gain)
