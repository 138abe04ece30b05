"""Fuzz attention and the loading of states (tests/native/fuzz_*.cpp) in the patched tree, under clang's sanitizers."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from qlutattn_patch.building import cmake, install, toolchain
from qlutattn_patch.building.presets import preset
from qlutattn_patch.system import console, process
from qlutattn_patch.system.errors import EXIT_CHECK_FAILED, EXIT_EXPECTED, EXIT_OK, ExpectedError
from qlutattn_patch.workspace import Workspace

NATIVE = Path(__file__).resolve().parent.parent / "tests" / "native"
COVERAGE = ["-fsanitize=fuzzer-no-link", "-fno-sanitize-coverage=trace-cmp"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
LONGEST = 256  # bytes of an input: about 150 choose the case, the others are data
SEEDS = 64


@dataclass(frozen=True)
class Target:
    """A libFuzzer program: its sources and libraries, and how these are built.

    Building all of libllama with sanitizers takes 15 minutes. So `state` compiles the cache's sources into the
    program, where they take precedence over those in a plain libllama.
    """

    source: str
    include: tuple[str, ...]
    preset: str
    libraries: tuple[str, ...]  # the first one is built
    sources: tuple[str, ...] = ()  # of the tree


TARGETS = {
    "attn": Target(
        "fuzz_attn.cpp", ("ggml/include", "ggml/src/ggml-cpu/qlutattn"), "fuzz", ("ggml", "ggml-cpu", "ggml-base")
    ),
    "state": Target(
        "fuzz_state.cpp",
        ("include", "src", "ggml/include"),
        "native",
        ("llama", "ggml", "ggml-cpu", "ggml-base"),
        (
            "src/llama-graph-mixed.cpp",
            "src/llama-kv-cache-mixed.cpp",
            "src/llama-kv-cache-mixed-check.cpp",
            "src/llama-kv-cache-mixed-iswa.cpp",
            "src/llama-kv-cache-mixed-shift.cpp",
            "src/llama-kv-mixed-block.cpp",
            "src/llama-kv-mixed-cells.cpp",
            "src/llama-kv-mixed-convert.cpp",
            "src/llama-kv-mixed-cpu.cpp",
            "src/llama-kv-mixed-packer.cpp",
            "src/llama-kv-mixed-planner.cpp",
            "src/llama-kv-mixed-io.cpp",
            "src/llama-kv-mixed-rope.cpp",
            "src/llama-kv-mixed-rotation.cpp",
            "src/llama-kv-mixed-shift.cpp",
            "src/llama-kv-mixed-state.cpp",
            "src/llama-memory-hybrid-mixed.cpp",
        ),
    ),
}


def check_tools() -> toolchain.Compilers:
    """The compilers of the preset `fuzz`, checked to link a libFuzzer program."""
    compilers = toolchain.find_compilers(preset("fuzz"))
    body = '#include <stddef.h>\nextern "C" int LLVMFuzzerTestOneInput(const char *, size_t) { return 0; }\n'
    linked = process.capture(
        [compilers.cxx, "-fsanitize=address,undefined,fuzzer", "-x", "c++", "-", "-o", "/dev/null"], input=body
    )
    if linked.status != 0:
        runtime = f"libclang-rt-{compilers.cxx_program.version[0]}-dev"
        raise ExpectedError(
            f"'{compilers.cxx}' cannot link a libFuzzer program (its runtime, {runtime}, may be missing).",
            install.line([runtime]),
        )
    return compilers


def build(workspace: Workspace, name: str) -> Path:
    """Build a target and its libraries in a patched tree; returns the program."""
    check_tools()
    if not (workspace.tree / "ggml" / "include" / "ggml-qlutattn.h").is_file():
        raise ExpectedError(f"The tree {workspace.tree} is not patched.", "qlutattn apply")
    target = TARGETS[name]
    made = cmake.build(workspace, target.preset, target.libraries[:1])
    folder = workspace.build_dir("fuzz")
    folder.mkdir(parents=True, exist_ok=True)
    # Without coverage: the program's own choices are not code to explore.
    main = compile_one(workspace, target, NATIVE / target.source, folder, [])
    own = [compile_one(workspace, target, workspace.tree / source, folder, COVERAGE) for source in target.sources]
    return link(target, made.bin, [main, *own], folder / f"fuzz_{name}", ["-fsanitize=fuzzer"])


def compile_one(workspace: Workspace, target: Target, source: Path, folder: Path, flags: list[str]) -> Path:
    """Compile a source of a target with the sanitizers; returns the object file."""
    compiled = folder / f"{source.stem}.o"
    include = [f"-I{workspace.tree / one}" for one in target.include]
    warnings = ["-Wall", "-Wextra"] if source.parent == NATIVE else []
    run([*cxx(), "-std=c++17", "-O2", "-g", *warnings, *flags, *SANITIZERS, *include, "-c", source, "-o", compiled])
    return compiled


def link(target: Target, libraries: Path, objects: list[Path], program: Path, flags: list[str]) -> Path:
    """Link objects and the libraries of a target with the sanitizers."""
    where = [f"-L{libraries}", f"-Wl,-rpath,{libraries}", *(f"-l{library}" for library in target.libraries)]
    run([*cxx(), *SANITIZERS, *flags, *objects, *where, "-o", program])
    return program


def cxx() -> list[str | Path]:
    """The compiler, through ccache if available."""
    ccache = process.find("ccache")
    return [*([ccache] if ccache else []), check_tools().cxx]


def run(argv: list[str | Path]) -> None:
    """Run a step of a build."""
    if process.stream(argv) != 0:
        raise ExpectedError(f"{argv[-1]} could not be built.", "fix the errors above")


def fuzz(program: Path, folder: Path, seconds: int, seed: int = 0) -> Path | None:
    """Run the target on seeds and the corpus of earlier runs; returns the input of a finding, if any.

    A seed of 0 is random.
    """
    corpus, findings = folder / "corpus", folder / "findings"
    for path in (corpus, findings):
        path.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    for finding in (NATIVE / "found").glob(f"{program.name}-*"):  # regressions
        shutil.copy(finding, corpus)
    generator = random.Random(1)
    for i in range(SEEDS):
        (corpus / f"seed-{i:02}").write_bytes(generator.randbytes(LONGEST))
    options = [
        f"-seed={seed}",
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        "-len_control=0",
        "-print_final_stats=1",
        "-report_slow_units=600",
    ]
    status = process.stream(
        [program, *options, f"-artifact_prefix={findings}/", corpus], env={"UBSAN_OPTIONS": "print_stacktrace=1"}
    )
    if status == 0:
        return None
    found = sorted(set(findings.iterdir()) - before)
    if not found:
        raise ExpectedError(f"{program} ended with {status}, and left no input.", "see its output above")
    return found[0]


def main() -> int:
    """Build, fuzz, and report the findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="seconds for each target (default: 600)")
    parser.add_argument("--target", choices=TARGETS, help="fuzz only this target")
    arguments = parser.parse_args()
    for name in [arguments.target] if arguments.target else TARGETS:
        try:
            program = build(Workspace.find(), name)
            finding = fuzz(program, program.parent / name, arguments.seconds)
        except ExpectedError as failure:
            console.error(failure.cause, failure.hint)
            return EXIT_EXPECTED
        if finding:
            console.error(f"The fuzzer has found {finding}.", process.shown([program, finding]))
            return EXIT_CHECK_FAILED
        console.out(f"{name}: no finding in {arguments.seconds} s.")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
