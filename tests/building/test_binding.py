"""The wheel of the patched llama-cpp-python: what is built of what, and when again. tests/native builds a real one."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fake_tools
import pytest
from helpers import ROOT, UPSTREAM, Project, edit, make_tar, write_pin
from releases import copy_from, only_index

from qlutattn_patch import __version__
from qlutattn_patch.building import binding, toolchain
from qlutattn_patch.commands import main
from qlutattn_patch.patches.generate import generate
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.system import digests, process
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.tree.worktree import apply

OWN = {"pyproject.toml": "[project]\n", "llama_cpp/__init__.py": '__version__ = "0.7"\n'}
TAGGED = f"0.7+qlutattn.{__version__}"


class Pip:
    """Stands for pip: keeps how it was called, and makes a wheel unless it is to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[list[str]] = []
        self.environment: Mapping[str, str] = {}
        self.status = 0
        monkeypatch.setattr(process, "follow", self.follow)

    def follow(
        self, argv: Sequence[str | Path], on_line: Callable[[str], None], env: Mapping[str, str] | None = None
    ) -> int:
        words = [str(one) for one in argv]
        self.calls.append(words)
        self.environment = env or {}
        self.package = Path(words[-1])
        on_line("  [1/2] Building a.o")
        if self.status == 0:
            wheel = Path(words[words.index("--wheel-dir") + 1]) / f"llama_cpp_python-{TAGGED}-py3-none-any.whl"
            wheel.write_text("wheel")
            Path(self.setting("build-dir")).mkdir(parents=True, exist_ok=True)
        else:
            on_line("  the moon is full")
        return self.status

    def setting(self, name: str) -> str:
        (found,) = (word.split("=", 2)[2] for word in self.calls[-1] if word.startswith(f"--config-settings={name}="))
        return found


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Pip:
    return Pip(monkeypatch)


@pytest.fixture
def patched(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A patched project whose pin is a release of the binding."""
    index = copy_from(only_index(tmp_path / "index", monkeypatch), monkeypatch)
    top = "llama_cpp_python-0.7"
    members = {f"{top}/{name}": text.encode() for name, text in OWN.items()}
    members |= {f"{top}/vendor/llama.cpp/{name}": text.encode() for name, text in UPSTREAM.items()}
    archive = make_tar(index / f"{top}.tar.gz", members)
    source = f'[[source]]\nkind = "sdist"\npackage = "{binding.PACKAGE}"\nversion = "0.7"\n'
    source += f'sha256 = "{digests.of_file(archive)}"\nprefix = "vendor/llama.cpp"\n'
    write_pin(project.root, project.upstream, source)
    folder = tmp_path / "bin ü"
    fake_tools.install(folder, "cc", "c++", "cmake", "ninja")
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setattr(toolchain.sysconfig, "get_path", lambda name: str(tmp_path / "pypi"))
    generate(project.workspace, project.repository).write()
    apply(project.workspace, load_series(project.workspace.patches))
    return project


def test_the_package_gets_the_patched_tree_a_version_and_a_module(patched: Project, pip: Pip) -> None:
    made = binding.build_wheel(patched.workspace, {})
    assert (made.version, made.cached, made.path.read_text()) == (TAGGED, False, "wheel")
    package = pip.package
    assert (package / "llama_cpp" / "__init__.py").read_text() == f'__version__ = "{TAGGED}"\n'
    tree = package / "vendor" / "llama.cpp"
    assert (tree / "CMakeLists.txt").read_bytes() == (patched.tree / "CMakeLists.txt").read_bytes()
    assert (tree / "ggml/src/qlutattn/qlutattn.c").is_file()
    assert not (tree / ".git").exists()
    assert "GGML_TYPE_QLUTATTN_K4_128X128 = " in (package / "llama_cpp" / "qlutattn.py").read_text()
    assert pip.setting("cmake.define.GGML_QLUTATTN") == "ON"
    assert pip.environment["CXX"].endswith("c++")


def test_it_is_built_again_only_if_something_differs(
    patched: Project, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = binding.build_wheel(patched.workspace, {})
    again = binding.build_wheel(patched.workspace, {})
    assert (again.cached, again.path) == (True, first.path)
    folder = Path(pip.setting("build-dir"))
    other = binding.build_wheel(patched.workspace, {"GGML_NATIVE": "OFF"})
    assert not other.cached
    assert pip.setting("cmake.define.GGML_NATIVE") == "OFF"
    assert not folder.exists(), "of another recipe"
    folder = Path(pip.setting("build-dir"))
    edit(patched.tree / "CMakeLists.txt", "project", "# edited\nproject")
    assert not binding.build_wheel(patched.workspace, {"GGML_NATIVE": "OFF"}).cached
    assert (Path(pip.setting("build-dir")), folder.exists()) == (folder, True)
    monkeypatch.setenv("CXXFLAGS", "-O1")
    assert not binding.build_wheel(patched.workspace, {"GGML_NATIVE": "OFF"}).cached
    assert len(pip.calls) == 4


def test_a_failed_build_shows_its_output_and_names_the_log(
    patched: Project, pip: Pip, capfd: pytest.CaptureFixture[str]
) -> None:
    pip.status = 1
    with pytest.raises(ExpectedError, match=r"pip could not build .*the full output is in (.*)\.") as failure:
        binding.build_wheel(patched.workspace, {})
    assert "the moon is full" in capfd.readouterr().err
    log = re.search(r"is in (.*)\.$", failure.value.cause)
    assert log
    assert "the moon is full" in Path(log[1]).read_text(encoding="utf-8")
    pip.status = 0
    assert not binding.build_wheel(patched.workspace, {}).cached


def test_an_unpatched_tree_and_another_pin_are_refused(project: Project, pip: Pip) -> None:
    with pytest.raises(ExpectedError, match="names no release of llama-cpp-python"):
        binding.build_wheel(project.workspace, {})
    source = f'[[source]]\nkind = "sdist"\npackage = "{binding.PACKAGE}"\nversion = "0.7"\n'
    write_pin(project.root, project.upstream, f'{source}sha256 = "{"0" * 64}"\nprefix = "vendor/llama.cpp"\n')
    with pytest.raises(ExpectedError, match="is not patched") as failure:
        binding.build_wheel(project.workspace, {})
    assert failure.value.hint == "qlutattn apply"
    assert pip.calls == []


def test_the_command_copies_the_wheel(
    patched: Project, pip: Pip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        main.importlib.import_module("qlutattn_patch.commands.wheel").Workspace, "find", lambda: patched.workspace
    )
    assert main.run(["wheel", "--out", str(tmp_path / "dist" / "x")]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.parent == tmp_path / "dist" / "x"
    assert path.read_text() == "wheel"
    assert main.run(["wheel", "--json"]) == 0


# --- the module


class _Function:
    def __init__(self) -> None:
        self.argtypes: list[Any] = []
        self.restype: Any = None
        self.value = 256

    def __call__(self, *given: int) -> int:
        self.value = given[0] if given else self.value
        return self.value


@pytest.fixture
def module(patched: Project, pip: Pip, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """llama_cpp.qlutattn, over stand-ins for the library's functions."""
    binding.build_wheel(patched.workspace, {})
    lib = types.SimpleNamespace()
    for name in ("window", "sink"):
        function = _Function()
        setattr(lib, f"llama_qlutattn_set_kv_{name}", function)
        setattr(lib, f"llama_qlutattn_get_kv_{name}", function)
    inner = types.ModuleType("llama_cpp.llama_cpp")
    inner._lib = lib  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "llama_cpp", types.ModuleType("llama_cpp"))
    monkeypatch.setitem(sys.modules, "llama_cpp.llama_cpp", inner)
    made = types.ModuleType("qlutattn")
    exec((pip.package / "llama_cpp" / "qlutattn.py").read_text(encoding="utf-8"), made.__dict__)
    return made


def test_the_module_names_caches(module: types.ModuleType) -> None:
    assert module.cache("K4V4") == {"type_k": 50, "type_v": 53, "flash_attn": True}
    assert module.cache("K8V2") == {"type_k": 54, "type_v": 52, "flash_attn": True}
    assert module.cache("V1") == {"type_k": 1, "type_v": 51, "flash_attn": True}
    assert module.GGML_TYPE_QLUTATTN_K4_128X128 == 50
    for name in ("", "K3", "V4K4", "q8_0", "K4V4+w512"):
        with pytest.raises(ValueError, match="there is no cache"):
            module.cache(name)


def test_the_module_sets_window_and_sink(module: types.ModuleType) -> None:
    module.set_kv_window(512)
    module.set_kv_sink(0)
    assert (module.get_kv_window(), module.get_kv_sink()) == (512, 0)
    assert module._lib.llama_qlutattn_set_kv_window.restype is ctypes.c_uint32
    for number in (-1, 2**32):
        with pytest.raises(ValueError, match="no number of tokens"):
            module.set_kv_window(number)


def test_the_module_is_as_ruff_wants_it(pip: Pip, patched: Project) -> None:
    binding.build_wheel(patched.workspace, {})
    path = pip.package / "llama_cpp" / "qlutattn.py"
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--config", ROOT / "pyproject.toml", "--target-version", "py38", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
