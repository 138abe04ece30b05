"""Small hybrid models with random weights, attention layers beside recurrent ones, in the manner of tiny_models.

All can take back the last tokens of a sequence without a checkpoint (n_rs_seq). qwen35 has positions of several parts,
and can have a draft head (MTP) that guesses well, since it repeats the last layer on the embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from tiny_models import Drawer, add_tokenizer

N_EMBD = 256
N_FF = 256
N_HEAD_KV = 2
ATTENTION, RECURRENT, FEED_FORWARD = "attention", "recurrent", "feed forward"

# what each block does; except in nemotron_h, feed forward follows in any case
BLOCKS = {
    "lfm2": (RECURRENT, ATTENTION, RECURRENT, ATTENTION),
    "nemotron_h": (RECURRENT, ATTENTION, FEED_FORWARD, RECURRENT, ATTENTION, FEED_FORWARD),
    "qwen35": (RECURRENT, ATTENTION),
}


@dataclass(frozen=True)
class Recurrent:
    """The sizes of a recurrent layer: Mamba 2 (nemotron_h) or a gated delta net (qwen35)."""

    d_conv: int = 4
    d_inner: int = 128
    d_state: int = 32
    n_head: int = 4
    n_group: int = 1


def write_hybrid(path: Path, arch: str, head_dim: int = 64, seed: int = 0, mtp: bool = False) -> Path:
    """Write a hybrid model of this architecture; the same seed gives the same bytes."""
    blocks = BLOCKS[arch]
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name(f"tiny-{arch}-{head_dim}")
    writer.add_context_length(65536)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(len(blocks) + mtp)
    writer.add_head_count(N_EMBD // head_dim)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    if arch == "qwen35":
        writer.add_head_count_kv(N_HEAD_KV)
        writer.add_feed_forward_length(N_FF)
        writer.add_rope_dimension_sections([head_dim // 4, head_dim // 8, head_dim // 8, 0])
        writer.add_full_attention_interval(2)
        writer.add_nextn_predict_layers(int(mtp))
    else:
        writer.add_head_count_kv([N_HEAD_KV if block == ATTENTION else 0 for block in blocks])
    if arch == "lfm2":
        writer.add_shortconv_l_cache(3)
        writer.add_feed_forward_length(N_FF)
    else:
        add_recurrent_sizes(writer)
    if arch == "nemotron_h":
        writer.add_layer_norm_eps(1e-6)
        writer.add_feed_forward_length([N_FF if block == FEED_FORWARD else 0 for block in blocks])
    n_vocab = add_tokenizer(writer)
    draw = Drawer(writer, np.random.default_rng(seed))
    draw.norm("token_embd_norm" if arch == "lfm2" else "output_norm", N_EMBD)
    draw.matrix("output", n_vocab, N_EMBD, gain=2.0)
    add_embeddings(draw, n_vocab)
    for index, block in enumerate(blocks):
        # what a draft head does not know of is weak
        add_block(draw, arch, f"blk.{index}", block, head_dim, gain=0.1 if mtp and block == RECURRENT else 1.0)
    if mtp:
        add_draft_head(draw, f"blk.{len(blocks)}", f"blk.{len(blocks) - 1}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_recurrent_sizes(writer: gguf.GGUFWriter) -> None:
    """Write the sizes of the recurrent layers."""
    writer.add_ssm_conv_kernel(Recurrent.d_conv)
    writer.add_ssm_inner_size(Recurrent.d_inner)
    writer.add_ssm_state_size(Recurrent.d_state)
    writer.add_ssm_time_step_rank(Recurrent.n_head)
    writer.add_ssm_group_count(Recurrent.n_group)


def add_embeddings(draw: Drawer, n_vocab: int) -> None:
    """Draw the embeddings, all of the same length: a norm of weight 0.5 changes nothing."""
    data: npt.NDArray[np.float32] = draw.rng.standard_normal((n_vocab, N_EMBD), dtype=np.float32)
    draw.add("token_embd.weight", data * (0.5 / np.sqrt(np.mean(data**2, axis=1, keepdims=True))))


def add_block(draw: Drawer, arch: str, name: str, block: str, head_dim: int, gain: float) -> None:
    """Draw the weights of a block; the gain is that of what it adds."""
    draw.norm(f"{name}.attn_norm", N_EMBD)
    if block == ATTENTION:
        draw.matrix(f"{name}.attn_q", N_EMBD * (2 if arch == "qwen35" else 1), N_EMBD, gain=2.0)
        draw.matrix(f"{name}.attn_k", N_HEAD_KV * head_dim, N_EMBD)
        draw.matrix(f"{name}.attn_v", N_HEAD_KV * head_dim, N_EMBD)
        draw.matrix(f"{name}.attn_output", N_EMBD, N_EMBD, gain=2.0)
        if arch != "nemotron_h":
            draw.norm(f"{name}.attn_q_norm", head_dim, 2.0)
            draw.norm(f"{name}.attn_k_norm", head_dim)
    elif block == RECURRENT:
        {"lfm2": add_short_convolution, "nemotron_h": add_mamba2, "qwen35": add_delta_net}[arch](draw, name, gain)
    if arch == "nemotron_h" and block != FEED_FORWARD:
        return
    if arch != "nemotron_h":
        draw.norm(f"{name}.{'post_attention_norm' if arch == 'qwen35' else 'ffn_norm'}", N_EMBD)
        draw.matrix(f"{name}.ffn_gate", N_FF, N_EMBD)
    draw.matrix(f"{name}.ffn_up", N_FF, N_EMBD)
    draw.matrix(f"{name}.ffn_down", N_EMBD, N_FF, gain=0.5 * gain)


def add_short_convolution(draw: Drawer, name: str, gain: float) -> None:
    """Draw the weights of a recurrent layer that remembers two tokens."""
    draw.matrix(f"{name}.shortconv.conv", N_EMBD, 3)
    draw.matrix(f"{name}.shortconv.in_proj", 3 * N_EMBD, N_EMBD)
    draw.matrix(f"{name}.shortconv.out_proj", N_EMBD, N_EMBD, gain)


def add_mamba2(draw: Drawer, name: str, gain: float) -> None:
    """Draw the weights of a recurrent layer that forgets within some dozens of tokens."""
    size = Recurrent()
    n_conv = size.d_inner + 2 * size.n_group * size.d_state
    draw.matrix(f"{name}.ssm_in", size.d_inner + n_conv + size.n_head, N_EMBD)
    draw.matrix(f"{name}.ssm_conv1d", n_conv, size.d_conv)
    draw.constant(f"{name}.ssm_conv1d.bias", (n_conv,), 0.0)
    draw.constant(f"{name}.ssm_dt.bias", (size.n_head,), -3.0)
    draw.constant(f"{name}.ssm_a", (size.n_head, 1), -1.0)
    draw.constant(f"{name}.ssm_d", (size.n_head, 1), 1.0)
    draw.constant(f"{name}.ssm_norm.weight", (size.n_group, size.d_inner // size.n_group), 1.0)
    draw.matrix(f"{name}.ssm_out", N_EMBD, size.d_inner, gain)


def add_delta_net(draw: Drawer, name: str, gain: float) -> None:
    """Draw the weights of a gated delta net that forgets within some dozens of tokens."""
    size = Recurrent()
    n_conv = size.d_inner + 2 * size.n_group * size.d_state
    draw.matrix(f"{name}.attn_qkv", n_conv, N_EMBD)
    draw.matrix(f"{name}.attn_gate", size.d_inner, N_EMBD)
    draw.matrix(f"{name}.ssm_conv1d", n_conv, size.d_conv)
    draw.constant(f"{name}.ssm_dt.bias", (size.n_head,), -3.0)
    draw.constant(f"{name}.ssm_a", (size.n_head,), -1.0)
    draw.matrix(f"{name}.ssm_beta", size.n_head, N_EMBD)
    draw.matrix(f"{name}.ssm_alpha", size.n_head, N_EMBD)
    draw.constant(f"{name}.ssm_norm.weight", (size.d_inner // size.n_head,), 1.0)
    draw.matrix(f"{name}.ssm_out", N_EMBD, size.d_inner, gain)


def add_draft_head(draw: Drawer, name: str, repeats: str) -> None:
    """Add a draft head: the block that it repeats, fed with the embedding of the newest token alone."""
    for tensor, data in list(draw.drawn.items()):
        if tensor.startswith(f"{repeats}."):
            draw.add(tensor.replace(repeats, name, 1), data)
    draw.norm(f"{name}.nextn.enorm", N_EMBD, 0.5)
    draw.norm(f"{name}.nextn.hnorm", N_EMBD)
    draw.add(f"{name}.nextn.eh_proj.weight", np.eye(N_EMBD, 2 * N_EMBD, dtype=np.float32))
