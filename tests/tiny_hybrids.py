"""Small hybrid models with random weights, attention layers beside recurrent ones, in the manner of tiny_models.

Both can take back the last tokens of a sequence without a checkpoint (n_rs_seq).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from tiny_models import Drawer, add_tokenizer

N_EMBD = 256
N_FF = 256
N_HEAD_KV = 2
ATTENTION, RECURRENT, FEED_FORWARD = "attention", "recurrent", "feed forward"

# what each block does; in an lfm2 block, feed forward follows in any case
BLOCKS = {
    "lfm2": (RECURRENT, ATTENTION, RECURRENT, ATTENTION),
    "nemotron_h": (RECURRENT, ATTENTION, FEED_FORWARD, RECURRENT, ATTENTION, FEED_FORWARD),
}


@dataclass(frozen=True)
class Mamba2:
    """The sizes of a recurrent layer of nemotron_h."""

    d_conv: int = 4
    d_inner: int = 256
    d_state: int = 32
    n_head: int = 4
    n_group: int = 1


def write_hybrid(path: Path, arch: str, head_dim: int = 64, seed: int = 0) -> Path:
    """Write a hybrid model of this architecture; the same seed gives the same bytes."""
    blocks = BLOCKS[arch]
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name(f"tiny-{arch}-{head_dim}")
    writer.add_context_length(65536)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(len(blocks))
    writer.add_head_count(N_EMBD // head_dim)
    writer.add_head_count_kv([N_HEAD_KV if block == ATTENTION else 0 for block in blocks])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    if arch == "lfm2":
        writer.add_shortconv_l_cache(3)
        writer.add_feed_forward_length(N_FF)
    else:
        writer.add_layer_norm_eps(1e-6)
        writer.add_feed_forward_length([N_FF if block == FEED_FORWARD else 0 for block in blocks])
        writer.add_ssm_conv_kernel(Mamba2.d_conv)
        writer.add_ssm_inner_size(Mamba2.d_inner)
        writer.add_ssm_state_size(Mamba2.d_state)
        writer.add_ssm_time_step_rank(Mamba2.n_head)
        writer.add_ssm_group_count(Mamba2.n_group)
    n_vocab = add_tokenizer(writer)
    draw = Drawer(writer, np.random.default_rng(seed))
    draw.matrix("token_embd", n_vocab, N_EMBD, gain=float(np.sqrt(N_EMBD)) * 0.5)
    draw.norm("token_embd_norm" if arch == "lfm2" else "output_norm", N_EMBD)
    draw.matrix("output", n_vocab, N_EMBD, gain=2.0)
    for index, block in enumerate(blocks):
        add_block(draw, arch, f"blk.{index}", block, head_dim)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_block(draw: Drawer, arch: str, name: str, block: str, head_dim: int) -> None:
    """Draw the weights of a block."""
    draw.norm(f"{name}.attn_norm", N_EMBD)
    if block == ATTENTION:
        draw.matrix(f"{name}.attn_q", N_EMBD, N_EMBD, gain=2.0)
        draw.matrix(f"{name}.attn_k", N_HEAD_KV * head_dim, N_EMBD)
        draw.matrix(f"{name}.attn_v", N_HEAD_KV * head_dim, N_EMBD)
        draw.matrix(f"{name}.attn_output", N_EMBD, N_EMBD, gain=2.0)
    if arch == "lfm2":
        if block == ATTENTION:
            draw.norm(f"{name}.attn_q_norm", head_dim, 2.0)
            draw.norm(f"{name}.attn_k_norm", head_dim)
        else:
            draw.matrix(f"{name}.shortconv.conv", N_EMBD, 3)
            draw.matrix(f"{name}.shortconv.in_proj", 3 * N_EMBD, N_EMBD)
            draw.matrix(f"{name}.shortconv.out_proj", N_EMBD, N_EMBD)
        draw.norm(f"{name}.ffn_norm", N_EMBD)
        draw.matrix(f"{name}.ffn_gate", N_FF, N_EMBD)
    elif block == RECURRENT:
        add_mamba2(draw, name)
    if arch == "lfm2" or block == FEED_FORWARD:
        draw.matrix(f"{name}.ffn_up", N_FF, N_EMBD)
        draw.matrix(f"{name}.ffn_down", N_EMBD, N_FF, gain=0.5)


def add_mamba2(draw: Drawer, name: str) -> None:
    """Draw the weights of a recurrent layer that forgets within some dozens of tokens."""
    size = Mamba2()
    n_conv = size.d_inner + 2 * size.n_group * size.d_state
    draw.matrix(f"{name}.ssm_in", size.d_inner + n_conv + size.n_head, N_EMBD)
    draw.matrix(f"{name}.ssm_conv1d", n_conv, size.d_conv)
    draw.constant(f"{name}.ssm_conv1d.bias", (n_conv,), 0.0)
    draw.constant(f"{name}.ssm_dt.bias", (size.n_head,), -3.0)
    draw.constant(f"{name}.ssm_a", (size.n_head, 1), -1.0)
    draw.constant(f"{name}.ssm_d", (size.n_head, 1), 1.0)
    draw.constant(f"{name}.ssm_norm.weight", (size.n_group, size.d_inner // size.n_group), 1.0)
    draw.matrix(f"{name}.ssm_out", N_EMBD, size.d_inner)
