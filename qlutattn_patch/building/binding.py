"""The patched llama-cpp-python as a wheel: the pinned release with the patched tree inside, built by its own rules."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qlutattn_patch import __version__
from qlutattn_patch.building import ninja, toolchain
from qlutattn_patch.building.cmake import PATIENCE, ccache_settings, cores
from qlutattn_patch.building.origin import read_origin
from qlutattn_patch.building.presets import preset
from qlutattn_patch.system import console, process
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.lock import locked
from qlutattn_patch.templates.formats import QuantType, load_formats
from qlutattn_patch.tree.worktree import at_rest
from qlutattn_patch.upstream import archive, sdist
from qlutattn_patch.upstream.pin import SdistSource, load_pin
from qlutattn_patch.workspace import Workspace, cache_dir

PACKAGE = "llama-cpp-python"
_MODULE = Path(__file__).resolve().parent / "data" / "llama_cpp_qlutattn.py.in"
_LANDMARKS = ("llama_cpp/__init__.py", "pyproject.toml")
_VERSION = re.compile(r'^__version__ = "([^"+]+)"$', re.MULTILINE)
_FLAGS = ("CFLAGS", "CXXFLAGS", "LDFLAGS", "CMAKE_ARGS")


@dataclass(frozen=True)
class Wheel:
    """A wheel, its version, and whether it was there already."""

    path: Path
    version: str
    cached: bool


def build_wheel(workspace: Workspace, definitions: Mapping[str, str], jobs: int | None = None) -> Wheel:
    """The wheel of the pinned release with the patched tree: the cached one if all that it is made from is the same."""
    source = _source(workspace)
    origin = read_origin(workspace)
    if origin.series is None:
        raise ExpectedError(f"The tree {workspace.tree} is not patched.", "qlutattn apply")
    folder = workspace.home / "build" / "wheel"
    with locked(folder / ".lock", str(folder), PATIENCE):
        recipe = _recipe(definitions)
        key = _digest(recipe, source.sha256, origin, __version__, _MODULE.read_text(encoding="utf-8"))
        shelf = cache_dir() / "wheels" / key
        version = f"{source.version}+qlutattn.{__version__}"
        if cached := next(shelf.glob("*.whl"), None):
            return Wheel(cached, version, True)
        package = folder / "package"
        _unpack(sdist.obtain(source, cache_dir()), package)
        with at_rest(workspace):
            _put_tree(workspace.tree, package / source.prefix)
        _tag(package, version, _module(workspace, origin.series))
        # as deep below the package as build/PRESET below a clone: ccache then knows what was compiled there
        built = package / "build" / _digest(recipe)
        _forget_others(built)
        job = _Job(package, package / source.prefix, built, definitions, jobs or cores())
        return Wheel(job.run(shelf), version, False)


def _source(workspace: Workspace) -> SdistSource:
    for source in load_pin(workspace.pin_file).sources:
        if isinstance(source, SdistSource) and source.package == PACKAGE:
            return source
    raise ExpectedError(
        f"The pin {workspace.pin_file} names no release of {PACKAGE}.",
        "restore the pin: git checkout -- vendor/llama.cpp.toml",
    )


def _recipe(definitions: Mapping[str, str]) -> dict[str, str]:
    """What a build folder depends on, beside the sources."""
    compilers = toolchain.find_compilers(preset("native"))
    flags = {name: os.environ.get(name, "") for name in _FLAGS}
    programs = (toolchain.find_cmake(), toolchain.find_ninja(), compilers.c_program, compilers.cxx_program)
    return {**flags, **definitions, "programs": "; ".join(map(str, programs))}


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _forget_others(kept: Path) -> None:
    """Remove the build folders of other recipes."""
    for other in kept.parent.glob("*/"):
        if other != kept:
            shutil.rmtree(other)


def _unpack(found: Path, package: Path) -> None:
    """The package's own files, new; the build folder in it stays."""
    console.step(f"Unpacking {found}.")
    with tempfile.TemporaryDirectory(prefix="unpack-", dir=package.parent) as folder:
        fresh = Path(folder) / "package"
        archive.unpack(found, fresh, None, _LANDMARKS, lambda done, total: None)
        if (package / "build").is_dir():
            (package / "build").rename(fresh / "build")
        shutil.rmtree(package, ignore_errors=True)
        fresh.rename(package)


def _put_tree(tree: Path, place: Path) -> None:
    """The patched tree instead of the package's llama.cpp, with its times, so that only changes are compiled."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(tree, place, ignore=lambda folder, names: {".git"} if Path(folder) == tree else set())


def _tag(package: Path, version: str, module: str) -> None:
    """A local version, and the module of our own."""
    first = package / "llama_cpp" / "__init__.py"
    text, count = _VERSION.subn(f'__version__ = "{version}"', first.read_text(encoding="utf-8"))
    if count != 1:
        raise ExpectedError(f"{first} does not state the version as expected.", "qlutattn vendor, and try again")
    first.write_text(text, encoding="utf-8")
    (package / "llama_cpp" / "qlutattn.py").write_text(module, encoding="utf-8")


def _module(workspace: Workspace, series: str) -> str:
    """The source of llama_cpp.qlutattn."""
    types = load_formats(workspace.templates / "formats.toml").types
    filled = {
        "VERSION": __version__,
        "SERIES": series,
        "CONSTANTS": "\n".join(f"{_constant(kind)} = {kind.id}" for kind in types),
        "TYPES": ",\n    ".join(f'"{kind.label.upper()}": {_constant(kind)}' for kind in types),
    }
    text = _MODULE.read_text(encoding="utf-8")
    for name, value in filled.items():
        text = text.replace(f"@{name}@", value)
    return text


def _constant(kind: QuantType) -> str:
    return kind.enum.upper()


@dataclass(frozen=True)
class _Job:
    """pip running the package's own build."""

    package: Path
    tree: Path  # of llama.cpp, in the package
    folder: Path  # of the build
    definitions: Mapping[str, str]
    jobs: int

    @property
    def log(self) -> Path:
        return self.package.parent / "qlutattn-build.log"

    @property
    def environment(self) -> dict[str, str]:
        compilers = toolchain.find_compilers(preset("native"))
        tools = [str(program.path.parent) for program in (toolchain.find_cmake(), toolchain.find_ninja())]
        made = {
            "CC": compilers.cc,
            "CXX": compilers.cxx,
            "CMAKE_BUILD_PARALLEL_LEVEL": str(self.jobs),
            "NINJA_STATUS": ninja.STATUS,
            "PATH": os.pathsep.join([os.environ.get("PATH", ""), *tools]),
            **ccache_settings(self.tree),
        }
        if ccache := process.find("ccache"):
            made |= dict.fromkeys(("CMAKE_C_COMPILER_LAUNCHER", "CMAKE_CXX_COMPILER_LAUNCHER"), str(ccache))
        return made

    @property
    def command(self) -> list[str]:
        chosen = {**preset("native").definitions, "GGML_CCACHE": "OFF", **self.definitions}
        settings = {"build-dir": str(self.folder), "cmake.build-type": "Release"}
        settings |= {f"cmake.define.{name}": value for name, value in chosen.items()}
        argv = [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps", "--disable-pip-version-check"]
        return [*argv, *(f"--config-settings={key}={value}" for key, value in settings.items())]

    def run(self, shelf: Path) -> Path:
        """Build the wheel, and put it on its shelf."""
        output = ninja.Output()
        with (
            tempfile.TemporaryDirectory(prefix="wheel-", dir=self.package.parent) as made,
            console.progress("building the patched llama-cpp-python") as moved,
        ):

            def take(line: str) -> None:
                if output.take(line.removeprefix("  ")):  # pip's indentation
                    moved(output.done, output.total, output.doing)

            argv = [*self.command, "--wheel-dir", made, str(self.package)]
            status = process.follow(argv, take, env=self.environment)
            self.log.write_text("\n".join([process.shown(argv), *output.lines, ""]), encoding="utf-8")
            wheels = sorted(Path(made).glob("*.whl"))
            if not status and wheels:
                shelf.mkdir(parents=True, exist_ok=True)
                return Path(shutil.move(wheels[0], shelf / wheels[0].name))
        console.show(output.report())
        raise ExpectedError(
            f"pip could not build {PACKAGE} (exit status {status}); the full output is in {self.log}.",
            "fix the errors above, then run the same command again",
        )
