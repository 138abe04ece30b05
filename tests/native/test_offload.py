"""Builds with a backend for GPUs: stock works as ever, and caches are packed where keys and values stay on the CPU.

The device is this machine, behind ggml's RPC backend: to llama.cpp, a GPU like any other.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import effort
import kv_helpers
import pytest
import server_process
import tiny_models

from qlutattn_patch.commands import main
from qlutattn_patch.workspace import Workspace

pytestmark = [pytest.mark.compiler, pytest.mark.slow]

F16 = ("f16", "f16")
K4V4 = ("qlutattn_k4_128x128", "qlutattn_v4_128x128")
LAVAPIPE = Path(f"/usr/share/vulkan/icd.d/lvp_icd.{platform.machine()}.json")
REFUSED = "packed caches stay on the CPU, and layer {} is on RPC0: add --no-kv-offload (offload_kqv = false)"


def build(preset: str) -> Path:
    """Build libllama; the folder of the libraries."""
    assert main.run(["apply"]) == 0
    assert main.run(["build", "--preset", preset, "--target", "llama"]) == 0
    return Workspace.find().root / "build" / preset / "bin"


def compile_program(libraries: Path, to: Path, source: str = "offload.cpp") -> Path:
    """Compile one of our programs against a build of libllama."""
    return kv_helpers.compile_driver(source, Workspace.find().tree, to, binaries=libraries)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program(build("rpc"), tmp_path_factory.mktemp("offload"))


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The programs that drive the cache through the C API."""
    folder = tmp_path_factory.mktemp("drivers")
    return {name: compile_program(build("rpc"), folder, f"{name}.cpp") for name in ("kv_cache", "kv_shift")}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models of two layers."""
    folder = tmp_path_factory.mktemp("models")
    return {
        arch: tiny_models.write_model(folder / f"{arch}.gguf", tiny_models.Shape(arch=arch))
        for arch in ("llama", "gemma3")
    }


def run(
    program: Path, model: Path, types: tuple[str, str], port: int | None = None, **options: int
) -> subprocess.CompletedProcess[str]:
    """Run the program, on a device of its own."""
    port = server_process.free_port() if port is None else port
    argv = [program, model, port, *types, *(f"{name}={value}" for name, value in options.items())]
    return subprocess.run([str(one) for one in argv], capture_output=True, text=True, check=False)


def generate(program: Path, model: Path, types: tuple[str, str], **options: int) -> dict[str, Any]:
    """The tokens, and how many operations ran where."""
    done = run(program, model, types, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def test_stock_types_work_on_the_device(program: Path, models: dict[str, Path]) -> None:
    found = [generate(program, models["llama"], F16, ngl=ngl) for ngl in (0, 2, 99)]
    assert [one["ran"].get("FLASH_ATTN_EXT device", 0) > 0 for one in found] == [False, True, True]
    assert ["FLASH_ATTN_EXT CPU" in one["ran"] for one in found] == [True, True, False]
    assert found[0]["tokens"] == found[1]["tokens"] == found[2]["tokens"]


@pytest.mark.parametrize("types", [K4V4, (K4V4[0], "f16"), ("f16", K4V4[1])], ids=" ".join)
@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_packed_caches_stay_on_the_cpu(
    arch: str, types: tuple[str, str], program: Path, models: dict[str, Path]
) -> None:
    alone = generate(program, models[arch], types, ngl=0)
    for ngl in (2, 99):
        found = generate(program, models[arch], types, ngl=ngl, nkvo=1)
        assert found["tokens"] == alone["tokens"]
        assert found["ran"]["MUL_MAT device"] > 0
        assert found["ran"]["FLASH_ATTN_EXT_MIXED CPU"] == alone["ran"]["FLASH_ATTN_EXT_MIXED CPU"]
        assert found["ran"]["source CPU"] == alone["ran"]["source CPU"]  # q among them
        assert not {"FLASH_ATTN_EXT_MIXED device", "source device"} & found["ran"].keys()


def test_layers_that_are_not_offloaded_are_packed(program: Path, models: dict[str, Path]) -> None:
    alone = generate(program, models["llama"], K4V4, ngl=0)
    found = generate(program, models["llama"], K4V4, ngl=1)  # the output alone
    assert found["tokens"] == alone["tokens"]
    assert found["ran"]["MUL_MAT device"] > 0


def test_offloaded_layers_are_f16_beside_packed_ones(program: Path, models: dict[str, Path]) -> None:
    stock = generate(program, models["llama"], F16, ngl=2)
    found = generate(program, models["llama"], K4V4, ngl=2)  # the last layer and the output
    in_f16 = generate(program, models["llama"], K4V4, ngl=2, window=4096)
    assert found["ran"]["FLASH_ATTN_EXT_MIXED CPU"] == stock["ran"]["FLASH_ATTN_EXT CPU"] > 0
    assert found["ran"]["FLASH_ATTN_EXT device"] == stock["ran"]["FLASH_ATTN_EXT device"] > 0
    assert not {"FLASH_ATTN_EXT_MIXED device", "source device", "FLASH_ATTN_EXT CPU"} & found["ran"].keys()
    assert in_f16["tokens"] == stock["tokens"]


@pytest.mark.parametrize(
    ("driver", "scenario", "options"),
    [
        ("kv_cache", "logits", {}),
        ("kv_cache", "restore", {}),
        ("kv_cache", "restore", {"seqs": 2, "exact": 0}),
        ("kv_cache", "leak", {"seqs": 2}),
        ("kv_cache", "damage", {"times": 40}),
        ("kv_cache", "random", {"seqs": 2, "tokens": 3000}),
        ("kv_shift", "context", {}),
        ("kv_shift", "reuse", {}),
    ],
    ids=str,
)
def test_a_cache_of_which_a_half_is_on_the_device(
    driver: str, scenario: str, options: dict[str, int], drivers: dict[str, Path], models: dict[str, Path]
) -> None:
    port = server_process.free_port()
    done = kv_helpers.run(drivers[driver], models["llama"], scenario, "k4v4", port=port, ngl=2, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert rows
    for row in rows:
        assert row.get("worst", 0) < 0.2
        assert row.get("nmse", 0) < kv_helpers.BOUNDS["k4v4"]
        assert row.get("moved", 0) <= 1.3 * row.get("still", 1)


@pytest.mark.parametrize(("arch", "ngl", "layer"), [("llama", 99, 0), ("gemma3", 2, 1)])
def test_offloaded_layers_are_refused_in_words(
    arch: str, ngl: int, layer: int, program: Path, models: dict[str, Path]
) -> None:
    done = run(program, models[arch], K4V4, ngl=ngl)
    assert done.returncode == 2, done.stderr
    assert REFUSED.format(layer) in done.stdout


@pytest.fixture(scope="module")
def vulkan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with the Vulkan backend, where that can be compiled."""
    if not effort.thorough:
        pytest.skip("the Vulkan backend takes long to compile: make nightly does")
    folders = [Path(root) / "include" for root in (os.environ.get("VULKAN_SDK", "/usr"), "/usr")]

    def has(header: str, words: str) -> bool:
        files = [folder / header for folder in folders if (folder / header).is_file()]
        return bool(files) and words in files[0].read_text(encoding="utf-8")

    lacking = [] if shutil.which("glslc") else ["glslc"]
    if not has("vulkan/vulkan_core.h", "VK_EXT_layer_settings"):
        lacking.append("the headers of Vulkan 1.3.275 or newer (libvulkan-dev, or VULKAN_SDK in the environment)")
    if not has("spirv/unified1/spirv.hpp", "SPIRV"):
        lacking.append("spirv-headers")
    if lacking:
        pytest.skip(f"the Vulkan backend needs {', '.join(lacking)}")
    return compile_program(build("vulkan"), tmp_path_factory.mktemp("vulkan"))


@pytest.mark.nightly
def test_packed_caches_work_in_a_build_with_vulkan(vulkan: Path, models: dict[str, Path]) -> None:
    found = generate(vulkan, models["llama"], K4V4, port=0, ngl=0)
    assert len(found["tokens"]) == 32
    assert found["ran"]["FLASH_ATTN_EXT_MIXED CPU"] > 0


@pytest.mark.nightly
def test_vulkan_in_software(vulkan: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    if not LAVAPIPE.is_file():
        pytest.skip("Vulkan without a GPU needs mesa-vulkan-drivers")
    monkeypatch.setenv("VK_DRIVER_FILES", str(LAVAPIPE))
    monkeypatch.setenv("VK_ICD_FILENAMES", str(LAVAPIPE))  # of older loaders
    monkeypatch.setenv("GGML_VK_VISIBLE_DEVICES", "0")
    stock = generate(vulkan, models["llama"], F16, port=0, ngl=99, fa_off=1)  # its shader takes minutes in software
    assert stock["ran"]["SOFT_MAX device"] > 0
    packed = generate(vulkan, models["llama"], K4V4, port=0, ngl=99, nkvo=1)
    assert packed["ran"]["MUL_MAT device"] > 0
    assert not {"FLASH_ATTN_EXT_MIXED device", "source device"} & packed["ran"].keys()
    done = run(vulkan, models["llama"], K4V4, port=0, ngl=99)
    assert done.returncode == 2, done.stderr
    assert "packed caches stay on the CPU, and layer 0 is on Vulkan0" in done.stdout
