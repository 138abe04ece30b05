"""The last result of align, bench, sampling and eval of each build, stored with what it depends on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from msgspec import field

from qlutattn_patch.building import stamp
from qlutattn_patch.building.stamp import Built
from qlutattn_patch.system import cpu, digests, records
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.files import write_atomically
from qlutattn_patch.system.records import Versioned, encoded, plain
from qlutattn_patch.workspace import Workspace

ALIGN, BENCH, SAMPLING, EVAL = ("align", "bench", "sampling", "eval")
TARGETS = {ALIGN: "align_attn", BENCH: "bench_attn", SAMPLING: "bench_sampling", EVAL: "llama-perplexity"}
# what makes a first result
COMMANDS = {
    ALIGN: ("align",),
    BENCH: ("bench",),
    SAMPLING: ("bench", "--work", "sampling"),
    EVAL: ("eval", "--model", "M.gguf", "--text", "T.txt"),
}
_KERNEL = "GGML_QLUTATTN_KERNEL"
# the packages, besides align_attn itself, that decide whether align passes
_CHECKER_PACKAGES = ("system", "templates", "proof")


class StoredResult(Versioned, frozen=True):
    """A result, when it was taken, and what it depends on: build, processor, checker, inputs."""

    kind: str
    of: Built
    result: Mapping[str, Any]
    when: str
    part: bool = False  # a partial run: `--quick`, `--filter`
    cpu: str = ""
    cpu_digest: str = ""
    kernel: str | None = None  # forced by the environment
    checker: str | None = None
    inputs: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # size and mtime, since models are gigabytes

    @property
    def ok(self) -> bool:
        return bool(self.result.get("ok", True))

    @property
    def arguments(self) -> list[str]:
        """The arguments of its command, besides the preset, that repeat it."""
        return [str(word) for word in self.result.get("arguments", ())]

    def why_stale(self, folder: Path) -> list[str]:
        """Why the result is stale for this build on this machine; empty if it is fresh."""
        found = []
        if self.of.changed(folder / "bin"):
            now = stamp.known(folder, TARGETS[self.kind])
            why = self.of.differences(now) if now.facts else []
            found.append("it is of another build" + (f" ({'; '.join(why)})" if why else ""))
        if self.cpu_digest != cpu.digest():
            found.append(f"it was taken on another CPU ({self.cpu}; this is {cpu.cpu_name()})")
        if self.kernel != os.environ.get(_KERNEL):
            found.append(f"{_KERNEL} was {self.kernel or 'not set'}, now it is {os.environ.get(_KERNEL) or 'not set'}")
        if self.checker != _checker(self.kind):
            found.append("the program that checks it has changed")
        found += [f"{path} has changed" for path, before in self.inputs.items() if before != _size_and_time(path)]
        return found


def keep(
    workspace: Workspace,
    preset: str,
    kind: str,
    result: object,
    part: bool = False,
    inputs: tuple[Path, ...] = (),
) -> None:
    """Store a result in its build's folder; a passed partial result does not replace a fresh full one."""
    folder = workspace.build_dir(preset)
    made = StoredResult(
        kind,
        stamp.known(folder, TARGETS[kind]),
        plain(result),
        f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        part,
        cpu.cpu_name(),
        cpu.digest(),
        os.environ.get(_KERNEL),
        _checker(kind),
        {str(path.absolute()): _size_and_time(str(path)) for path in inputs},
    )
    if part and made.ok and load_fresh(workspace, preset, kind):
        return
    write_atomically(file_of(folder, kind), encoded(made))


def load_fresh(workspace: Workspace, preset: str, kind: str, part: bool = False) -> StoredResult | None:
    """The result if it passed and is fresh, else None; with `part`, a partial result is enough."""
    folder = workspace.build_dir(preset)
    try:
        found = read(folder, kind)
    except ExpectedError:
        return None
    return found if found and found.ok and (part or not found.part) and not found.why_stale(folder) else None


def read(folder: Path, kind: str) -> StoredResult | None:
    """The stored result in a build folder, or None."""
    path = file_of(folder, kind)
    try:
        found = records.read(path, StoredResult)
        if found.kind == kind:
            return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        pass
    raise ExpectedError(f"{path.name} is incomplete, or not a result of {kind}", f"qlutattn {' '.join(COMMANDS[kind])}")


def file_of(folder: Path, kind: str) -> Path:
    """The file of a build folder's last result of a kind."""
    return folder / f"qlutattn-{kind}.json"


def _checker(kind: str) -> str | None:
    return digests.of_rooms(*_CHECKER_PACKAGES) if kind == ALIGN else None


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        found = Path(path).stat()
        return found.st_size, found.st_mtime_ns
    except OSError:
        return 0, 0
