"""`qlutattn size` names the sizes that llama.cpp allocates."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import tiny_gemma3n
import tiny_models
import tiny_step35
from kv_helpers import compile_driver

from qlutattn_patch.measure import caches
from qlutattn_patch.measure.attention_layers import read_model
from qlutattn_patch.measure.cache_size import Context, Size, size_of
from qlutattn_patch.measure.gguf_header import read_header
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.templates.formats import load_formats
from qlutattn_patch.workspace import Workspace

pytestmark = pytest.mark.compiler

CACHES = "f16,q8_0,K8V8,K4V4,K4V2,K1V1,K4,V4"
CONTEXTS = [
    Context(16384, 1, False, 512),
    Context(16384, 4, True, 512),
    Context(10000, 3, False, 256),
    Context(1500, 1, False, 512),  # too short to be packed
]
TYPES = load_formats(Workspace.find().templates / "formats.toml").types


@pytest.fixture(scope="module")
def program(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_driver("cache_size.cpp", tree, tmp_path_factory.mktemp("sizes"))


def printed(line: str) -> Size:
    """What llama.cpp says about a cache."""
    if line.split()[1] == "refused":
        return Size(refused=line)
    whole = [float(size) for size in re.findall(r"llama_kv_cache: size = +([\d.]+) MiB", line)]
    mixed = re.search(r"f16 part (\d+) bytes, packed part (\d+) bytes", line)
    f16, packed = (int(mixed[1]), int(mixed[2])) if mixed else (0, 0)
    return Size(f16=f16, packed=packed, whole=round(sum(whole) * 2**20))


def compare(program: Path, path: Path, context: Context) -> list[str]:
    """The caches whose sizes differ from what is computed, each with both."""
    chosen = caches.parse(CACHES, TYPES)
    model = read_model(read_header(path), path.name)
    numbers = (context.tokens, context.sequences, int(context.unified), context.ubatch)
    pairs = [f"{cache.type_k}/{cache.type_v}" for cache in chosen]
    argv = [program, path, *map(str, numbers), *pairs]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{path.name}: {done.stderr[-2000:]}"
    different = []
    for cache, line in zip(chosen, done.stdout.splitlines(), strict=True):
        said, computed = printed(line), size_of(model, cache, context, TYPES)
        coarse = 0.02 * 2**20 if said.whole else 0  # two digits of MiB of each part
        if bool(said.refused) != bool(computed.refused) or abs(said.total - computed.total) > coarse:
            different.append(f"{path.stem} {cache.name} {context}: {line}\n  computed: {computed}")
        elif said.packed != computed.packed:
            different.append(f"{path.stem} {cache.name}: packed {said.packed}, computed {computed.packed}")
    return different


@pytest.mark.parametrize("context", CONTEXTS, ids=str)
def test_sizes_are_those_that_are_allocated(context: Context, program: Path, tmp_path: Path) -> None:
    models = [
        tiny_models.write_model(tmp_path / f"{arch}-{size}.gguf", tiny_models.Shape.of(arch, size))
        for arch, size in (("llama", 128), ("llama", 64), ("qwen3", 80), ("gemma3", 256), ("gemma4", 128))
    ]
    models.append(tiny_gemma3n.write_gemma3n(tmp_path / "gemma3n.gguf"))
    models.append(tiny_step35.write_step35(tmp_path / "step35.gguf"))
    assert [line for path in models for line in compare(program, path, context)] == []


UNKNOWN = {"eagle3", "dflash", "gemma4-assistant", "granite-switch"}


@pytest.mark.slow
def test_sizes_of_every_architecture(program: Path, every_model: list[Path]) -> None:
    different, unsized = [], []
    for path in every_model:
        try:
            different += compare(program, path, Context(4096, 2, False, 512))
        except ExpectedError as failure:
            unsized.append(f"{path.stem}: {failure.cause}")
    assert different == []
    assert len(unsized) < 20, unsized
