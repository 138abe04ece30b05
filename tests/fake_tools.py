"""Stand-ins for compilers, cmake and ninja: one program that acts by its name, and logs how it was called."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def install(folder: Path, *names: str) -> None:
    """Put stand-ins of these names into a folder that is to be on PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / name
        path.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{__file__}' '{path}' \"$@\"\n", encoding="utf-8")
        path.chmod(0o755)


def write_program(path: Path, code: str) -> None:
    """Make a file a program in Python, also where that has spaces in its path: the second line is a string to it."""
    path.write_text(f'#!/bin/sh\n"exec" "{sys.executable}" "$0" "$@"\n{code}', encoding="utf-8")
    path.chmod(0o755)


def says(folder: Path, name: str, version: str) -> None:
    """Make a stand-in say this as its version."""
    (folder / f"{name}.version").write_text(version, encoding="utf-8")


def behaves(folder: Path, name: str, status: int, output: str) -> None:
    """Make a stand-in write this and end so, when it is asked to work."""
    (folder / f"{name}.behaviour").write_text(json.dumps([status, output]), encoding="utf-8")


def calls(folder: Path, name: str) -> list[dict[str, object]]:
    """How a stand-in was called (but for its version): `argv` and `env`."""
    log = folder / f"{name}.log"
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def _main(me: Path, argv: list[str]) -> int:
    if argv == ["--version"]:
        version = me.with_name(f"{me.name}.version")
        print(version.read_text(encoding="utf-8") if version.exists() else f"{me.name} version 9.8.7")
        return 0
    kept = {name: os.environ.get(name) for name in ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "NINJA_STATUS")}
    with me.with_name(f"{me.name}.log").open("a", encoding="utf-8") as log:
        log.write(json.dumps({"argv": argv, "env": kept}) + "\n")
    job = "--build" if "--build" in argv else "-S" if "-S" in argv else ""
    behaviour = me.with_name(f"{me.name}{job}.behaviour")
    status, output = json.loads(behaviour.read_text(encoding="utf-8")) if behaviour.exists() else (0, "")
    print(output, end="", flush=True)
    if job == "-S":
        tree = Path(argv[argv.index("-B") + 1])
        (tree / "CMakeFiles").mkdir(parents=True, exist_ok=True)
        (tree / "CMakeCache.txt").touch()
        if status == 0:
            (tree / "build.ninja").touch()
    return status


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), sys.argv[2:]))
