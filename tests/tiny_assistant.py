"""A small Gemma 4 assistant with random weights: a draft model that reads the keys and values of its target."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from tiny_models import Drawer, Shape, add_tokenizer

TARGET = Shape.of("gemma4", 128)
N_LAYER = 2
N_EMBD = 128
N_FF = 128


def write_assistant(path: Path, seed: int = 0) -> Path:
    """Write a draft model for the target; the same seed gives the same bytes."""
    writer = gguf.GGUFWriter(path, "gemma4-assistant")
    writer.add_name("tiny-assistant")
    writer.add_context_length(TARGET.n_ctx)
    writer.add_embedding_length(N_EMBD)
    writer.add_embedding_length_out(TARGET.n_embd)
    writer.add_block_count(N_LAYER)
    writer.add_nextn_predict_layers(N_LAYER)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(TARGET.n_head)
    writer.add_head_count_kv(TARGET.n_head_kv)
    writer.add_key_length(TARGET.head_dim)
    writer.add_value_length(TARGET.head_dim)
    writer.add_key_length_swa(TARGET.head_dim)
    writer.add_value_length_swa(TARGET.head_dim)
    writer.add_rope_dimension_count(TARGET.head_dim)
    writer.add_rope_dimension_count_swa(TARGET.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_freq_base_swa(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_sliding_window(TARGET.n_swa)
    writer.add_sliding_window_pattern([True, False])
    n_vocab = add_tokenizer(writer)
    draw = Drawer(writer, np.random.default_rng(seed))
    draw.matrix("token_embd", n_vocab, N_EMBD)
    draw.norm("output_norm", N_EMBD)
    draw.matrix("nextn.pre_projection", N_EMBD, 2 * TARGET.n_embd)
    draw.matrix("nextn.post_projection", TARGET.n_embd, N_EMBD)
    draw.constant("rope_freqs.weight", (TARGET.head_dim // 2,), 1.0)
    for layer in range(N_LAYER):
        add_layer(draw, f"blk.{layer}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_layer(draw: Drawer, block: str) -> None:
    """Draw the weights of a layer."""
    draw.norm(f"{block}.attn_norm", N_EMBD)
    draw.matrix(f"{block}.attn_q", TARGET.n_head * TARGET.head_dim, N_EMBD)
    draw.matrix(f"{block}.attn_output", N_EMBD, TARGET.n_head * TARGET.head_dim)
    draw.norm(f"{block}.attn_q_norm", TARGET.head_dim, 2.0 / TARGET.head_dim**0.5)
    draw.norm(f"{block}.post_attention_norm", N_EMBD)
    draw.constant(f"{block}.layer_output_scale.weight", (1,), 1.0)
    draw.norm(f"{block}.ffn_norm", N_EMBD)
    draw.matrix(f"{block}.ffn_gate", N_FF, N_EMBD)
    draw.matrix(f"{block}.ffn_up", N_FF, N_EMBD)
    draw.matrix(f"{block}.ffn_down", N_EMBD, N_FF)
    draw.norm(f"{block}.post_ffw_norm", N_EMBD)
