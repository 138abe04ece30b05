"""What the tests of the patched tree share."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from kv_helpers import build, compile_native

from qlutattn_patch.commands import main
from qlutattn_patch.workspace import Workspace


@pytest.fixture(scope="module")
def tree() -> Path:
    """The project's own vendored tree, with the patches in it."""
    assert main.run(["apply"]) == 0
    return Workspace.find().tree


@pytest.fixture(scope="module")
def every_model(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A small model of each architecture that llama.cpp knows, made by the generator of its own tests."""
    binaries = build("llama-common")
    folder = tmp_path_factory.mktemp("every model")
    includes = [f"-I{tree / each}" for each in ("include", "common", "src", "vendor", "ggml/include")]
    libraries = [f"-L{binaries}", f"-Wl,-rpath,{binaries}", "-lllama-common", "-lllama", "-lggml", "-lggml-base"]
    generator = compile_native(str(tree / "tests" / "test-llama-archs.cpp"), folder, *includes, *libraries)
    subprocess.run([generator, "-o", folder, "-s", "1"], capture_output=True, check=True)
    return sorted(folder.glob("*.gguf"))
