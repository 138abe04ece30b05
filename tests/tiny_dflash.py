"""A small DFlash draft model with random weights: it guesses blocks of tokens from hidden states of its target."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import tiny_models
from tiny_models import Drawer, Shape, add_tokenizer

TARGET = Shape()
SHAPE = Shape(n_layer=1, arch="qwen3")
BLOCK = 8  # tokens


def write_dflash(path: Path, seed: int = 0) -> Path:
    """Write a draft model for the target; the same seed gives the same bytes."""
    writer = gguf.GGUFWriter(path, "dflash")
    writer.add_name("tiny-dflash")
    writer.add_context_length(SHAPE.n_ctx)
    writer.add_embedding_length(SHAPE.n_embd)
    writer.add_block_count(SHAPE.n_layer)
    writer.add_feed_forward_length(SHAPE.n_ff)
    writer.add_head_count(SHAPE.n_head)
    writer.add_head_count_kv(SHAPE.n_head_kv)
    writer.add_key_length(SHAPE.head_dim)
    writer.add_value_length(SHAPE.head_dim)
    writer.add_rope_dimension_count(SHAPE.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_array("dflash.target_layers", [0, 1])
    writer.add_uint32("dflash.block_size", BLOCK)
    n_vocab = add_tokenizer(writer)
    writer.add_mask_token_id(n_vocab - 1)
    draw = Drawer(writer, np.random.default_rng(seed))
    tiny_models.add_weights(draw, SHAPE, n_vocab)
    draw.matrix("fc", SHAPE.n_embd, 2 * TARGET.n_embd)
    draw.norm("enc.output_norm", SHAPE.n_embd)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
