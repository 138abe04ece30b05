"""The Python files of the pinned llama-cpp-python, unpatched, on the patched libraries."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import tiny_models

from qlutattn_patch.commands import main
from qlutattn_patch.upstream import sdist
from qlutattn_patch.upstream.pin import SdistSource, load_pin
from qlutattn_patch.workspace import Workspace, cache_dir

pytestmark = pytest.mark.compiler

PAGE = Path(__file__).parents[2] / "docs" / "bindings.md"
NEEDS = {"numpy": "numpy", "typing-extensions": "typing_extensions", "diskcache": "diskcache", "jinja2": "jinja2"}
PROMPT = tiny_models.CORPUS * 2
GENERATE = f"""
import ctypes
import llama_cpp

lib = ctypes.CDLL(llama_cpp.llama_cpp._lib._name)

def generate(**settings):
    for name, value in settings.items():
        getattr(lib, f"llama_qlutattn_set_kv_{{name}}")(value)
    llama = llama_cpp.Llama("M.gguf", n_ctx=2048, seed=1, **TYPES)
    answer = llama({PROMPT!r}, max_tokens=24, temperature=0)
    assert answer["usage"]["prompt_tokens"] > 400
    assert answer["usage"]["completion_tokens"] > 0
    print(repr(answer["choices"][0]["text"]))

"""
PACKED = "TYPES = dict(type_k=50, type_v=53, flash_attn=True)\n"
F16 = "TYPES = dict(type_k=1, type_v=1, flash_attn=True)\n"


@pytest.fixture(scope="module")
def libraries() -> Path:
    """The patched libraries."""
    assert main.run(["apply"]) == 0
    assert main.run(["build", "--preset", "native", "--target", "llama"]) == 0
    return Workspace.find().root / "build" / "native" / "bin"


@pytest.fixture(scope="module")
def binding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the Python files of the pinned release, and with what they import that is not there yet."""
    [source] = [one for one in load_pin(Workspace.find().pin_file).sources if isinstance(one, SdistSource)]
    folder = tmp_path_factory.mktemp("binding")
    try:
        archive = sdist.obtain(source, cache_dir())
    except sdist.SourceUnavailable as unavailable:
        pytest.skip(str(unavailable))
    python = re.compile(r"[^/]+/(llama_cpp/.*\.py)")
    with tarfile.open(archive) as files:
        for member in files:
            if found := python.fullmatch(member.name):
                path = folder / found[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(files.extractfile(member).read())  # type: ignore[union-attr]
    missing = [name for name, module in NEEDS.items() if not importlib.util.find_spec(module)]
    if missing:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", folder]
        done = subprocess.run([*pip, *missing], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"pip could not install {', '.join(missing)}, which llama-cpp-python imports: {done.stderr}")
    return folder


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model."""
    folder = tmp_path_factory.mktemp("work")
    tiny_models.write_model(folder / "M.gguf")
    return folder


class Binding:
    """Programs that use the binding."""

    def __init__(self, libraries: Path, binding: Path, work: Path) -> None:
        self._env = {**os.environ, "LLAMA_CPP_LIB_PATH": str(libraries), "PYTHONPATH": str(binding)}
        self._work = work

    def run(self, program: str, **env: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", program]
        return subprocess.run(argv, cwd=self._work, env=self._env | env, capture_output=True, text=True, check=False)

    def texts(self, program: str, **env: str) -> tuple[list[str], list[tuple[int, int]]]:
        """What a program prints, and sink and window of each context that it makes."""
        done = self.run(program, **env)
        assert done.returncode == 0, done.stderr[-4000:]
        kept = re.findall(r"for (\d+) sinks, a window of (\d+)", done.stderr)
        return done.stdout.splitlines(), [(int(sink), int(window)) for sink, window in kept]


@pytest.fixture(scope="module")
def python(libraries: Path, binding: Path, work: Path) -> Binding:
    return Binding(libraries, binding, work)


def test_the_functions_set_window_and_sink(python: Binding) -> None:
    program = f"{PACKED}{GENERATE}generate()\ngenerate(window=96, sink=8)\ngenerate(window=512)\n"
    texts, kept = python.texts(program)
    assert kept == [(128, 256), (8, 96), (8, 512)]
    assert len(texts) == 3
    assert min(map(len, texts)) > 10


def test_the_environment_sets_them_where_no_function_did(python: Binding) -> None:
    program = f"{PACKED}{GENERATE}generate()\ngenerate(window=32)\n"
    _, kept = python.texts(program, LLAMA_ARG_KV_WINDOW="96", LLAMA_ARG_KV_SINK="8")
    assert kept == [(8, 96), (8, 32)]


def test_what_is_all_in_the_window_is_what_f16_gives(python: Binding) -> None:
    packed, kept = python.texts(f"{PACKED}{GENERATE}generate(window=4_000_000_000)\n")
    stock, none = python.texts(f"{F16}{GENERATE}generate()\n")
    assert packed == stock
    assert kept == [(128, 2**31 - 1)]
    assert none == []


@pytest.mark.parametrize("value", ["many", "-1", "12 tokens", "99999999999"])
def test_a_wrong_value_is_refused_in_words(value: str, python: Binding) -> None:
    done = python.run(f"{PACKED}{GENERATE}generate()\n", LLAMA_ARG_KV_SINK=value)
    assert done.returncode == 1, done.stderr
    assert "ValueError" in done.stderr
    assert f"LLAMA_ARG_KV_SINK in the environment is '{value}': set it to a number of tokens" in done.stderr
    done = python.run(f"{F16}{GENERATE}generate()\n", LLAMA_ARG_KV_SINK=value)
    assert done.returncode == 0, done.stderr


def test_the_documented_program_works(python: Binding) -> None:
    programs = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    [program] = (one for one in programs if "ctypes" in one)
    texts, kept = python.texts(program)
    assert kept == [(16, 64)]
    assert texts
