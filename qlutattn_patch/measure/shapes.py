"""The shapes of well-known models, in the words of GGUF metadata, for sizes without a file."""

from __future__ import annotations

from qlutattn_patch.measure.gguf_header import Header
from qlutattn_patch.system.errors import ExpectedError

# architecture, layers, embedding, heads, KV heads, channels of a head, more keys
_SHAPES: dict[str, tuple[str, int, int, int, int, int, dict[str, int]]] = {
    "llama-3.2-1b": ("llama", 16, 2048, 32, 8, 64, {}),
    "llama-3.2-3b": ("llama", 28, 3072, 24, 8, 128, {}),
    "llama-3.1-8b": ("llama", 32, 4096, 32, 8, 128, {}),
    "llama-3.3-70b": ("llama", 80, 8192, 64, 8, 128, {}),
    "mistral-small-24b": ("llama", 40, 5120, 32, 8, 128, {}),
    "qwen2.5-7b": ("qwen2", 28, 3584, 28, 4, 128, {}),
    "qwen3-4b": ("qwen3", 36, 2560, 32, 8, 128, {}),
    "qwen3-8b": ("qwen3", 36, 4096, 32, 8, 128, {}),
    "qwen3-32b": ("qwen3", 64, 5120, 64, 8, 128, {}),
    "qwen3-30b-a3b": ("qwen3moe", 48, 2048, 32, 4, 128, {}),
    "qwen3-next-80b-a3b": ("qwen3next", 48, 2048, 16, 2, 256, {}),
    "phi-4": ("phi3", 40, 5120, 40, 10, 128, {}),
    "gemma-3-4b": ("gemma3", 34, 2560, 8, 4, 256, {"attention.sliding_window": 1024}),
    "gemma-3-12b": ("gemma3", 48, 3840, 16, 8, 256, {"attention.sliding_window": 1024}),
    "gemma-3-27b": ("gemma3", 62, 5376, 32, 16, 128, {"attention.sliding_window": 1024}),
    "gpt-oss-20b": ("gpt-oss", 24, 2880, 64, 8, 64, {"attention.sliding_window": 128}),
    "gpt-oss-120b": ("gpt-oss", 36, 2880, 64, 8, 64, {"attention.sliding_window": 128}),
    "deepseek-v3": (
        *("deepseek2", 61, 7168, 128, 1, 576),
        {"attention.value_length": 512, "attention.key_length_mla": 192, "attention.value_length_mla": 128},
    ),
}
NAMES = tuple(_SHAPES)


def shape(name: str) -> Header:
    """The metadata of a well-known model that sizes depend on."""
    if name not in _SHAPES:
        raise ExpectedError(f"There is no shape '{name}'.", f"name one of {', '.join(NAMES)}, or a file with --model")
    arch, layers, embedding, heads, kv_heads, head, more = _SHAPES[name]
    keys = {
        "block_count": layers,
        "embedding_length": embedding,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": head,
        "attention.value_length": head,
        **more,
    }
    return {"general.architecture": arch, "general.name": name, **{f"{arch}.{key}": n for key, n in keys.items()}}
