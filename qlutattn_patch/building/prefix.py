"""Install the patched tools, libraries, headers and CMake packages, by llama.cpp's own rules."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

from qlutattn_patch.building import cmake, toolchain
from qlutattn_patch.system import console, process
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.workspace import Workspace

_WRITTEN = re.compile(r"-- (?:Installing|Up-to-date): (.*)")
_LIBRARIES = ("ggml", "llama")
_TOOLS = ("all",)


def install(
    workspace: Workspace,
    prefix: Path,
    preset: str,
    libraries_only: bool,
    definitions: Mapping[str, str],
    jobs: int | None = None,
) -> list[str]:
    """Build in a folder of its own and install below `prefix`; returns the installed files."""
    prefix = prefix.absolute()
    _check_writable(prefix)
    built = cmake.build(
        workspace,
        preset,
        _LIBRARIES if libraries_only else _TOOLS,
        jobs=jobs,
        definitions={**_layout(), **definitions},
        folder=f"{preset}-{'libraries' if libraries_only else 'install'}",
    )
    argv: list[str | Path] = [toolchain.find_cmake().path, "--install", built.path, "--prefix", prefix]
    lines: list[str] = []
    console.step(f"installing below {prefix}")
    if process.follow(argv, lines.append):
        console.show(lines[-20:])
        raise ExpectedError(
            f"cmake could not install below {prefix}.", "fix the error above, then run the same command again"
        )
    return [match[1] for line in lines if (match := _WRITTEN.fullmatch(line))]


def _layout() -> dict[str, str]:
    """Programs find the libraries beside them, wherever both are moved; tests and examples are not installed."""
    here = "@loader_path" if platform.system() == "Darwin" else "$ORIGIN"
    left_out = dict.fromkeys(("LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES"), "OFF")
    return {"CMAKE_INSTALL_RPATH": f"{here}/../lib", "CMAKE_INSTALL_LIBDIR": "lib", **left_out}


def _check_writable(prefix: Path) -> None:
    """Refuse, before anything is built, a place that cannot be written."""
    there = next(folder for folder in (prefix, *prefix.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ExpectedError(
            f"{there} is no folder that you may write to.", "name a folder of your own, such as ~/.local"
        )
