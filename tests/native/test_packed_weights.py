"""Packed types are for KV caches: whatever would use one for a weight is refused with the reason, before it begins."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest
import tiny_models

from qlutattn_patch.commands import main
from qlutattn_patch.workspace import Workspace

pytestmark = [pytest.mark.compiler, pytest.mark.slow]

PROGRAMS = ("llama-quantize", "llama-export-lora", "llama-server", "llama-bench")
K4 = 50
MERGED = "blk.1.ffn_down.weight"


@pytest.fixture(scope="module")
def programs() -> Path:
    assert main.run(["apply"]) == 0
    targets = [word for name in PROGRAMS for word in ("--target", name)]
    assert main.run(["build", "--preset", "native", *targets]) == 0
    return Workspace.find().root / "build" / "native" / "bin"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_models.write_model(tmp_path / "M.gguf")


def write_adapter(path: Path) -> Path:
    """A LoRA adapter of one tensor."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 16.0)
    writer.add_tensor(f"{MERGED}.lora_b", np.zeros((256, 128), np.float16))
    writer.add_tensor(f"{MERGED}.lora_a", np.zeros((128, 256), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def packed(path: Path, tensor: str) -> Path:
    """Give a tensor of a file a packed type; what the file has there is more than such a tensor takes."""
    data = bytearray(path.read_bytes())
    name = struct.pack("<Q", len(tensor)) + tensor.encode()
    assert data.count(name) == 1
    at = data.index(name) + len(name)
    (n_dims,) = struct.unpack_from("<I", data, at)
    struct.pack_into("<I", data, at + 4 + 8 * n_dims, K4)
    path.write_bytes(data)
    return path


def run(*argv: str | Path) -> tuple[int, str]:
    done = subprocess.run([str(one) for one in argv], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def refused(says: str, *argv: str | Path) -> None:
    code, output = run(*argv)
    assert code == 1, output[-2000:]
    assert says in output, output[-2000:]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--tensor-type", "attn_q=qlutattn_k4_128x128"), "tensors named 'attn_q'"),
        (("--pure", "--tensor-type", "ffn_.*=qlutattn_k1_128x128"), "tensors named 'ffn_.*'"),
        (("--output-tensor-type", "qlutattn_k4_128x128"), "the output tensor"),
        (("--token-embedding-type", "qlutattn_v2_128x128"), "the token embeddings"),
        (("--dry-run", "--token-embedding-type", "qlutattn_v2_128x128"), "the token embeddings"),
    ],
    ids=" ".join,
)
def test_quantize_makes_no_packed_weights(options: tuple[str, ...], what: str, programs: Path, model: Path) -> None:
    out = model.with_name("out.gguf")
    refused(f"{what} cannot be qlutattn_", programs / "llama-quantize", *options, model, out, "q8_0")
    assert not out.exists()
    code, output = run(programs / "llama-quantize", model, out, "q8_0")
    assert code == 0, output


def test_a_file_with_packed_weights_is_refused(programs: Path, model: Path) -> None:
    packed(model, MERGED)
    says = f"tensor '{MERGED}' has the type qlutattn_k4_128x128, which only KV caches can have"
    refused(says, programs / "llama-server", "-m", model)
    out = model.with_name("out.gguf")
    for type in ("q8_0", "copy"):
        refused(says, programs / "llama-quantize", "--allow-requantize", model, out, type)
    assert not out.exists()


def test_an_adapter_with_packed_tensors_is_refused(programs: Path, model: Path) -> None:
    adapter = write_adapter(model.with_name("A.gguf"))
    merge = (programs / "llama-export-lora", "-m", model, "--lora", adapter, "-o", model.with_name("out.gguf"))
    code, output = run(*merge)
    assert code == 0, output
    packed(adapter, f"{MERGED}.lora_a")
    refused("qlutattn_k4_128x128, which only KV caches can have", *merge)
    says = f"tensor '{MERGED}.lora_a' has the type qlutattn_k4_128x128, which only KV caches can have"
    refused(says, programs / "llama-server", "-m", model, "--lora", adapter)


def test_an_adapter_is_not_merged_into_packed_weights(programs: Path, model: Path) -> None:
    adapter = write_adapter(model.with_name("A.gguf"))
    packed(model, MERGED)
    refused(
        f"tensor '{MERGED}' of {model} has the type qlutattn_k4_128x128",
        *(programs / "llama-export-lora", "-m", model, "--lora", adapter, "-o", model.with_name("out.gguf")),
    )


def test_a_draft_model_that_cannot_have_its_cache_is_named(programs: Path, model: Path) -> None:
    argv = ["-m", model, "-md", model, "--spec-type", "draft-simple", "-ctkd", "qlutattn_v4_128x128"]
    code, output = run(programs / "llama-server", *argv)
    assert code == 1, output
    assert "failed to create the context of the draft model" in output
    assert "MTP" not in output


def test_bench_says_why(programs: Path, model: Path) -> None:
    argv = (programs / "llama-bench", "-m", model, "-p", "8", "-n", "0", "-ctk", "qlutattn_v4_128x128")
    refused("K needs f16 or a qlutattn_k* type", *argv)
