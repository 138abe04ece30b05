"""A small vision encoder with random weights, as Qwen2-VL has it: what llama.cpp calls an mmproj file."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from tiny_models import Drawer

N_EMBD = 64
N_FF = 128
N_HEAD = 2
PATCH = 4  # pixels; a token has two patches in each direction
PIXELS = 2 * PATCH  # of a token, in each direction


def write_vision(path: Path, n_embd_text: int, seed: int = 0) -> Path:
    """Write an encoder for a text model with embeddings of this size; the same seed gives the same bytes."""
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_name("tiny-vision")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(gguf.VisionProjectorType.QWEN2VL)
    writer.add_vision_image_size(64 * PATCH)
    writer.add_vision_patch_size(PATCH)
    writer.add_vision_embedding_length(N_EMBD)
    writer.add_vision_feed_forward_length(N_FF)
    writer.add_vision_block_count(1)
    writer.add_vision_head_count(N_HEAD)
    writer.add_vision_projection_dim(n_embd_text)
    writer.add_vision_attention_layernorm_eps(1e-6)
    writer.add_vision_image_mean([0.5, 0.5, 0.5])
    writer.add_vision_image_std([0.5, 0.5, 0.5])
    add_weights(Drawer(writer, np.random.default_rng(seed)), n_embd_text)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_weights(draw: Drawer, n_embd_text: int) -> None:
    """Draw the weights."""
    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1"):  # of two frames
        data = draw.rng.standard_normal((N_EMBD, 3, PATCH, PATCH), dtype=np.float32)
        draw.add(name, data * np.float32(1 / PATCH))
    block = "v.blk.0"
    for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
        add_linear(draw, f"{block}.{name}", N_EMBD, N_EMBD)
    add_linear(draw, f"{block}.ffn_up", N_FF, N_EMBD)
    add_linear(draw, f"{block}.ffn_down", N_EMBD, N_FF)
    for name in (f"{block}.ln1", f"{block}.ln2", "v.post_ln"):
        draw.norm(name, N_EMBD)
        draw.constant(f"{name}.bias", (N_EMBD,), 0.0)
    add_linear(draw, "mm.0", 4 * N_EMBD, 4 * N_EMBD)
    add_linear(draw, "mm.2", n_embd_text, 4 * N_EMBD)


def add_linear(draw: Drawer, name: str, n_out: int, n_in: int) -> None:
    """Draw a matrix with a bias."""
    draw.matrix(name, n_out, n_in)
    draw.constant(f"{name}.bias", (n_out,), 0.0)
