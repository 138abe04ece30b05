"""The package names of missing tools, and the command that installs them."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable

from qlutattn_patch.system import process

# tool: (Debian and Ubuntu, Homebrew); other tools go by their own names.
_PACKAGES: dict[str, tuple[str, str]] = {
    "git": ("git", "git"),
    "c++": ("g++", "gcc"),
    "clang": ("clang", "llvm"),
    "cmake": ("cmake", "cmake"),
    "ninja": ("ninja-build", "ninja"),
    "ccache": ("ccache", "ccache"),
    "lld": ("lld", "lld"),
    "qemu-aarch64": ("qemu-user", ""),
    "arm64 sysroot": ("g++-aarch64-linux-gnu", ""),
}


def line(tools: Iterable[str]) -> str:
    """One command that installs these tools; with an unknown package manager, their names."""
    names = list(dict.fromkeys(tools))
    if process.find("apt-get"):
        return _joined("apt-get install -y", [_PACKAGES.get(name, (name, name))[0] for name in names], root=True)
    if platform.system() == "Darwin":
        return _joined("brew install", [_PACKAGES.get(name, (name, name))[1] for name in names], root=False)
    return f"install with your package manager: {', '.join(names)}"


def _joined(command: str, packages: list[str], root: bool) -> str:
    sudo = "sudo " if root and os.geteuid() != 0 else ""
    return f"{sudo}{command} {' '.join(dict.fromkeys(name for name in packages if name))}"
