"""Configure and build a llama.cpp tree with cmake and ninja, which `toolchain` finds."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from qlutattn_patch.building import ninja, toolchain
from qlutattn_patch.building.origin import Origin, read_origin
from qlutattn_patch.building.presets import DEFAULT_TARGET, Preset
from qlutattn_patch.building.presets import preset as preset_named
from qlutattn_patch.building.stamp import LARGE, OURS, Stamp, built_now, different_facts, read_stamp
from qlutattn_patch.building.toolchain import Compilers, Program
from qlutattn_patch.system import console, process
from qlutattn_patch.system.errors import ExpectedError, named
from qlutattn_patch.system.lock import locked
from qlutattn_patch.tree import worktree
from qlutattn_patch.workspace import Workspace

PATIENCE = 3600.0  # seconds that a second build waits for the first
# Targets that depend on ggml and llama only: a tree for these alone configures in seconds.
_SMALL_TARGETS = (*OURS, "llama", "ggml", "ggml-base", "ggml-cpu")
_NO_DOWNLOADS = {"LLAMA_BUILD_UI": "OFF", "LLAMA_USE_PREBUILT_UI": "OFF"}


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a cmake cache."""

    source: Path
    preset: Preset
    type: str
    cmake: Program
    ninja: Program
    compilers: Compilers
    ccache: Path | None
    lld: Path | None
    large: bool  # whether tools, examples and tests are configured too
    chosen: Mapping[str, str]  # definitions of the user's, which win

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a configure; the preset's flags follow the user's, so that they win."""
        mine = {"CC": self.compilers.cc, "CXX": self.compilers.cxx}
        for name in ("CFLAGS", "CXXFLAGS"):
            users = "" if self.preset.is_cross else os.environ.get(name, "")
            mine[name] = f"{users} {self.preset.flags}".strip()
        mine["LDFLAGS"] = "" if self.preset.is_cross else os.environ.get("LDFLAGS", "")
        return mine

    @property
    def definitions(self) -> dict[str, str]:
        """The `-D` definitions, in command-line order."""
        size = "ON" if self.large else "OFF"
        made = {
            "CMAKE_BUILD_TYPE": self.type,
            "CMAKE_MAKE_PROGRAM": str(self.ninja.path),
            **dict.fromkeys(LARGE, size),
            **_NO_DOWNLOADS,
            "GGML_CCACHE": "OFF",  # upstream's detection; the compiler launcher is set instead
            **self.preset.definitions,
        }
        if self.preset.clang:
            made |= {"CMAKE_C_COMPILER": self.compilers.cc, "CMAKE_CXX_COMPILER": self.compilers.cxx}
        if self.ccache:
            made |= dict.fromkeys(("CMAKE_C_COMPILER_LAUNCHER", "CMAKE_CXX_COMPILER_LAUNCHER"), str(self.ccache))
        return {**made, **(self.preset.cross if self.preset.is_cross else {}), **self.chosen}

    @property
    def facts(self) -> dict[str, str]:
        """The recipe as strings, as stored in the stamp and compared with it."""
        return {
            "source tree": str(self.source),
            "cmake": str(self.cmake),
            "C compiler": f"{self.compilers.c_program}{_arguments(self.compilers.cc)}",
            "C++ compiler": f"{self.compilers.cxx_program}{_arguments(self.compilers.cxx)}",
            "linker lld": str(self.lld or "absent"),
            **{name: value for name, value in self.environment.items() if name not in ("CC", "CXX")},
            **self.definitions,
        }


@dataclass(frozen=True)
class BuildTree:
    """A build folder of cmake and ninja."""

    path: Path

    @property
    def bin(self) -> Path:
        return self.path / "bin"

    @property
    def log(self) -> Path:
        return self.path / "qlutattn-build.log"

    def facts(self) -> Mapping[str, str]:
        """What the cache was configured with; empty if no configure has finished."""
        complete = (self.path / "CMakeCache.txt").is_file() and (self.path / "build.ninja").is_file()
        return read_stamp(self.path).facts if complete else {}

    def chosen(self) -> Mapping[str, str]:
        """The user's definitions of the last configure."""
        return read_stamp(self.path).chosen

    @property
    def is_large(self) -> bool:
        return self.facts().get(LARGE[0]) == "ON"

    def configure(self, recipe: Recipe) -> None:
        """Configure if the cache is missing or was configured differently, and report why."""
        old = self.facts()
        stale = different_facts(old, recipe.facts)
        if not stale:
            return
        toolchain.check_compilers(recipe.preset, recipe.compilers)
        has_cache = (self.path / "CMakeCache.txt").exists()
        if has_cache and old:
            grown = recipe.large and not self.is_large
            reasons = ["the target needs llama.cpp's tools"] if grown else []
            reasons += [why for why in stale if not (grown and why.split(" ")[0] in LARGE)]
            console.step(f"reconfiguring {self.path.name} because {'; '.join(reasons)}")
        elif has_cache:
            console.step(f"reconfiguring {self.path.name} because its last configure did not finish")
        before = read_stamp(self.path)
        kept = before.targets  # still present, with what they were built with
        Stamp(targets=kept, chosen=before.chosen).write(self.path)
        # Like `cmake --fresh`, which the minimum cmake lacks. Objects stay: they are in subfolders.
        (self.path / "CMakeCache.txt").unlink(missing_ok=True)
        shutil.rmtree(self.path / "CMakeFiles", ignore_errors=True)

        environment = recipe.environment
        if recipe.lld and toolchain.has_lld(recipe.preset, recipe.compilers):
            environment["LDFLAGS"] = f"{environment['LDFLAGS']} -fuse-ld=lld".strip()
        argv: list[str | Path] = [recipe.cmake.path, "-S", recipe.source, "-B", self.path, "-G", "Ninja"]
        argv += [f"-D{name}={value}" for name, value in recipe.definitions.items()]
        lines: list[str] = []
        with console.spinner(f"configuring {self.path.name}: {recipe.preset.summary}"):
            status = process.follow(argv, lines.append, env=environment)
        with named(self.log):
            self.log.write_text("\n".join([process.shown(argv), *lines, ""]), encoding="utf-8")
        if status != 0:
            console.show(lines[-60:])
            raise ExpectedError(
                f"cmake could not configure {self.path}; the full output is in {self.log}.", "qlutattn doctor"
            )
        Stamp(recipe.facts, kept, recipe.chosen).write(self.path)

    def make(self, recipe: Recipe, targets: Sequence[str], also: Sequence[str], origin: Origin, jobs: int) -> None:
        """Build the targets and the files in `also`, and record what the targets were built from."""
        origin.write_header(self.path)
        stamp = read_stamp(self.path)
        untouched = {name: built for name, built in stamp.targets.items() if name not in targets}
        Stamp(stamp.facts, untouched, stamp.chosen).write(self.path)  # until the targets are whole
        self.build(recipe, [*targets, *also], jobs)
        made = {target: built_now(self.bin, target, recipe.facts, origin) for target in targets}
        whole = untouched | {target: built for target, built in made.items() if built}
        Stamp(stamp.facts, whole, stamp.chosen).write(self.path)

    def build(self, recipe: Recipe, targets: Sequence[str], jobs: int) -> None:
        """Run ninja; the full output of failed commands comes last."""
        argv: list[str | Path] = [
            recipe.cmake.path,
            "--build",
            self.path,
            "--config",
            recipe.type,
            "--target",
            *targets,
        ]
        argv += ["--parallel", str(jobs)]
        output = ninja.Output()
        with console.progress(f"building {_named(targets)} ({recipe.preset.name})") as moved:

            def take(line: str) -> None:
                if output.take(line):
                    moved(output.done, output.total, output.doing)

            status = process.follow(argv, take, env={"NINJA_STATUS": ninja.STATUS, **ccache_settings(recipe.source)})
        with named(self.log), self.log.open("a", encoding="utf-8") as log:
            log.write("\n".join([process.shown(argv), *output.lines, ""]))
        if status == 0:
            return
        if output.unknown_target:
            raise ExpectedError(
                f"The tree {recipe.source} has no target '{output.unknown_target}'.",
                f"see the targets: {process.shown([recipe.cmake.path, '--build', self.path, '--target', 'help'])}",
            )
        console.show(output.report())
        places = f" in {len(output.errors)} place(s)" if output.errors else ""
        raise ExpectedError(
            f"The build of {_named(targets)} failed{places}; the full output is in {self.log}.",
            "fix the errors above, then run the same command again",
        )


def build(
    workspace: Workspace,
    preset_name: str,
    targets: Sequence[str] = (DEFAULT_TARGET,),
    type: str | None = None,
    jobs: int | None = None,
    objects: Sequence[str] = (),
    definitions: Mapping[str, str] | None = None,
    folder: str | None = None,
) -> BuildTree:
    """Configure the preset's build tree if needed, and build the targets and the objects of these source files.

    `folder` names another build tree than that of the preset.
    The user's definitions stay with the build tree, as in cmake's own cache; one without a value is forgotten.
    """
    preset = preset_named(preset_name)
    _check_source(workspace, targets)
    tree = BuildTree(workspace.build_dir(folder or preset.name))
    compilers = toolchain.find_compilers(preset)
    cmake, ninja_program = toolchain.find_cmake(), toolchain.find_ninja()
    with _alone(workspace, tree.path):
        recipe = Recipe(
            source=workspace.tree,
            preset=preset,
            type=type or preset.type,
            cmake=cmake,
            ninja=ninja_program,
            compilers=compilers,
            ccache=process.find("ccache"),
            lld=process.find("ld.lld") if platform.system() == "Linux" else None,
            large=tree.is_large or any(target not in _SMALL_TARGETS for target in targets),
            chosen={name: value for name, value in {**tree.chosen(), **(definitions or {})}.items() if value},
        )
        tree.configure(recipe)
        # ninja's syntax for the output of a source file
        also = [f"{workspace.tree / path}^" for path in objects]
        tree.make(recipe, targets, also, read_origin(workspace), jobs or cores())
    return tree


@contextmanager
def _alone(workspace: Workspace, folder: Path) -> Iterator[None]:
    """Keep other builds, apply, revert and vendor waiting; without a git checkout, other builds in the folder."""
    try:
        worktree.open_tree(workspace)
    except ExpectedError:
        with locked(folder / "qlutattn-build.lock", str(folder), PATIENCE):
            yield
        return
    with worktree.at_rest(workspace):
        yield


def _check_source(workspace: Workspace, targets: Sequence[str]) -> None:
    if not (workspace.tree / "CMakeLists.txt").is_file():
        raise ExpectedError(
            f"There is no llama.cpp in {workspace.tree}.",
            "qlutattn vendor" if workspace.is_vendored else "give --tree a llama.cpp checkout",
        )
    for target in OURS.intersection(targets):
        if not (workspace.tree / "tools" / target.replace("_", "-")).is_dir():
            raise ExpectedError(
                f"The tree {workspace.tree} is not patched: it has no {target} to build.",
                process.shown(["qlutattn", "apply", *workspace.options]),
            )


def _named(targets: Sequence[str]) -> str:
    """The targets for a progress line; source files are only counted."""
    named = [target for target in targets if not target.endswith("^")]
    files = len(targets) - len(named)
    return ", ".join(named) + (f" and {files} file{'s' if files > 1 else ''}" if files else "")


def _arguments(command: str) -> str:
    """The arguments in CC or CXX after the program."""
    return " ".join(["", *shlex.split(command)[1:]])


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ccache_settings(source: Path) -> Mapping[str, str]:
    """Share one cache between checkouts, with absolute paths in messages."""
    wanted = {"CCACHE_BASEDIR": str(source.parent), "CCACHE_NOHASHDIR": "1", "CCACHE_ABSSTDERR": "1"}
    return {name: value for name, value in wanted.items() if name not in os.environ}
