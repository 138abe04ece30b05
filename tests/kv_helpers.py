"""Building and running the C++ programs that drive the mixed KV cache through the C API."""

from __future__ import annotations

import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import server_process

from qlutattn_patch.commands import main
from qlutattn_patch.workspace import Workspace

NATIVE = Path(__file__).parent / "native"

# |packed - f16|^2 / |without attention to the first half - f16|^2, of logits: about the sum of what K and V lose
BOUNDS = {
    "k8v8": 0.0006,
    "k8v4": 0.008,
    "k2v8": 0.19,
    "k4v4": 0.03,
    "k4v2": 0.11,
    "k2v4": 0.19,
    "k2v2": 0.26,
    "k1v1": 0.6,
    "k4": 0.02,
    "v4": 0.008,
    "k2": 0.19,
    "v2": 0.09,
}


def cache_types(pair: str) -> tuple[str, str]:
    """The types for K and V: k4v2 packs both, v4 only V."""
    k, v = re.search(r"k\d", pair), re.search(r"v\d", pair)
    return tuple(f"qlutattn_{found[0]}_128x128" if found else "f16" for found in (k, v))  # type: ignore[return-value]


def build(target: str, preset: str = "native") -> Path:
    """Build a target; the folder of the programs."""
    assert main.run(["build", "--preset", preset, "--target", target]) == 0
    return Workspace.find().root / "build" / preset / "bin"


def compile_native(source: str, to: Path, *arguments: str | Path) -> Path:
    """Compile one of our test programs."""
    program = to / Path(source).stem
    argv = [os.environ.get("CXX", "c++"), "-std=c++17", "-O1", NATIVE / source, *arguments, "-o", program]
    done = subprocess.run([str(one) for one in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def compile_driver(source: str, tree: Path, to: Path, *more: str, binaries: Path | None = None) -> Path:
    """Compile a program that drives the cache through the C API of the patched libraries."""
    binaries = binaries or build("llama")
    includes = [f"-I{tree / folder}" for folder in ("include", "ggml/include")]
    libraries = [f"-L{binaries}", f"-Wl,-rpath,{binaries}", "-lllama", "-lggml", "-lggml-base", "-pthread"]
    return compile_native(source, to, *includes, *more, *libraries)


def run(program: Path, model: Path, scenario: str, pair: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a scenario."""
    argv = [program, model, scenario, *cache_types(pair), *(f"{name}={value}" for name, value in options.items())]
    return subprocess.run([str(one) for one in argv], capture_output=True, text=True, check=False)


def findings(program: Path, model: Path, scenario: str, pair: str, **options: object) -> list[dict[str, Any]]:
    """Run a scenario that must go well; what it found."""
    done = run(program, model, scenario, pair, **options)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def serve_several_clients(server: Path, model: Path, folder: Path, more: list[str]) -> None:
    """Ask a server with packed caches from several threads; save, erase and restore a slot."""
    k, v = cache_types("k4v4")
    argv = ["-m", model, "-c", "6144", "-ctk", k, "-ctv", v, "--kv-window", "64", "--kv-sink", "16", *more]
    argv += ["--slot-save-path", folder, "--threads", "1"]  # idle threads would wait busily for one another
    with server_process.start(server, *argv) as ask:
        prompts = [
            " ".join(f"{word} {i}" for i in range(150)) for word in ("tile", "token", "cache", "window", "scale")
        ]

        def complete(prompt: str) -> str:
            body = {"prompt": prompt, "n_predict": 60, "temperature": 0, "cache_prompt": True, "ignore_eos": True}
            answer = ask("POST", "/completion", body)
            assert answer["tokens_predicted"] == 60
            return str(answer["content"])

        alone = [complete(prompt) for prompt in prompts]
        assert len(set(alone)) == len(alone)
        with ThreadPoolExecutor(5) as pool:
            for _ in range(2):
                together = list(pool.map(complete, prompts))
                assert all(together)
        saved = ask("POST", "/slots/0?action=save", {"filename": "slot.bin"})
        assert saved["n_saved"] > 128
        assert ask("POST", "/slots/0?action=erase", {})["n_erased"] == saved["n_saved"]
        assert ask("POST", "/slots/0?action=restore", {"filename": "slot.bin"})["n_restored"] == saved["n_saved"]
