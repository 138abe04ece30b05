"""A small EAGLE3 draft model, which guesses well for a target of one layer: it repeats that layer on the embeddings."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import tiny_models
from tiny_models import Drawer, Shape, add_tokenizer

TARGET = Shape(n_layer=1)


class Repeater(Drawer):
    """Draws the weights of the target; attention takes the target's hidden states as well, with weights of zero."""

    def add(self, name: str, data: npt.NDArray[np.float32]) -> None:
        if name in ("blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"):
            data = np.concatenate([data, np.zeros_like(data)], axis=1)
        super().add(name, data)


def write_eagle3(path: Path, seed: int = 0, blur: float = 0) -> Path:
    """Write a draft model for the target that the same seed gives, with weights that are off by a part of them."""
    writer = gguf.GGUFWriter(path, "eagle3")
    writer.add_name("tiny-eagle3")
    writer.add_context_length(TARGET.n_ctx)
    writer.add_embedding_length(TARGET.n_embd)
    writer.add_block_count(1)
    writer.add_feed_forward_length(TARGET.n_ff)
    writer.add_head_count(TARGET.n_head)
    writer.add_head_count_kv(TARGET.n_head_kv)
    writer.add_key_length(TARGET.head_dim)
    writer.add_value_length(TARGET.head_dim)
    writer.add_rope_dimension_count(TARGET.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_array("eagle3.target_layers", [0, 0, 0])
    writer.add_uint32("eagle3.target_hidden_size", TARGET.n_embd)
    n_vocab = add_tokenizer(writer)
    draw = Repeater(writer, np.random.default_rng(seed), blur)
    tiny_models.add_weights(draw, TARGET, n_vocab)
    draw.norm("blk.0.attn_norm_2", TARGET.n_embd)
    draw.constant("fc.weight", (TARGET.n_embd, 3 * TARGET.n_embd), 0.0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
