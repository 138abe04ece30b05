"""Fuzz packing and mixed attention (tests/native/fuzz_attn.cpp) in the patched tree, under clang's sanitizers."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from qlutattn_patch import cmake, console, install, process, toolchain
from qlutattn_patch.errors import EXIT_CHECK_FAILED, EXIT_EXPECTED, EXIT_OK, ExpectedError
from qlutattn_patch.presets import preset
from qlutattn_patch.workspace import Workspace

SOURCE = Path(__file__).resolve().parent.parent / "tests" / "native" / "fuzz_attn.cpp"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
LONGEST = 256  # bytes of an input: what chooses takes about 150, the others are data
SEEDS = 64


def check_tools() -> toolchain.Compilers:
    """The compilers of the preset `fuzz`; they must be able to link a libFuzzer program."""
    compilers = toolchain.find_compilers(preset("fuzz"))
    body = '#include <stddef.h>\nextern "C" int LLVMFuzzerTestOneInput(const char *, size_t) { return 0; }\n'
    linked = process.capture(
        [compilers.cxx, "-fsanitize=address,undefined,fuzzer", "-x", "c++", "-", "-o", "/dev/null"], input=body
    )
    if linked.status != 0:
        runtime = f"libclang-rt-{compilers.cxx_program.version[0]}-dev"
        raise ExpectedError(
            f"'{compilers.cxx}' can not link a libFuzzer program (its runtime, {runtime}, may be missing).",
            install.line([runtime]),
        )
    return compilers


def build(workspace: Workspace) -> Path:
    """Build ggml of a patched tree and the target; the program."""
    compilers = check_tools()
    if not (workspace.tree / "ggml" / "include" / "ggml-qlutattn.h").is_file():
        raise ExpectedError(f"The tree {workspace.tree} is not patched.", "qlutattn apply")
    made = cmake.build(workspace, "fuzz", ("ggml",))
    ggml = workspace.tree / "ggml"
    program, compiled = made.path / "fuzz_attn", made.path / "fuzz_attn.o"
    include = [f"-I{ggml / 'include'}", f"-I{ggml / 'src' / 'ggml-cpu' / 'qlutattn'}"]
    libraries = [f"-L{made.bin}", f"-Wl,-rpath,{made.bin}", "-lggml", "-lggml-cpu", "-lggml-base"]
    # Only ggml's coverage counts, so the target itself is compiled without.
    flags = ["-std=c++17", "-O2", "-g", "-Wall", "-Wextra", *SANITIZERS]
    steps: tuple[list[str | Path], ...] = (
        [compilers.cxx, *flags, *include, "-c", SOURCE, "-o", compiled],
        [compilers.cxx, "-fsanitize=address,undefined,fuzzer", compiled, *libraries, "-o", program],
    )
    for argv in steps:
        if process.stream(argv) != 0:
            raise ExpectedError(f"clang can not build {SOURCE.name}.", "mend what the compiler names above")
    return program


def fuzz(program: Path, folder: Path, seconds: int, seed: int = 0) -> Path | None:
    """Run the target on seeds and on what earlier runs have kept; the input of a finding, if there is one.

    A seed of 0 is another one in each run.
    """
    corpus, findings = folder / "corpus", folder / "findings"
    for path in (corpus, findings):
        path.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
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
        raise ExpectedError(f"{program} ended with {status}, and left no input.", "see what it says above")
    return found[0]


def main() -> int:
    """Build, fuzz, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="how long (default: 600)")
    arguments = parser.parse_args()
    try:
        program = build(Workspace.find())
        finding = fuzz(program, program.parent, arguments.seconds)
    except ExpectedError as failure:
        console.error(failure.cause, failure.hint)
        return EXIT_EXPECTED
    if finding:
        console.error(f"The fuzzer has found {finding}.", process.shown([program, finding]))
        return EXIT_CHECK_FAILED
    console.out(f"No finding in {arguments.seconds} s.")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
