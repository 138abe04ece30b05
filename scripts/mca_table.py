"""Print llvm-mca's cycles of the NEON kernels' inner loops and of upstream's f16 loops, as a Markdown table.

The loops are found by function in the assembly that clang writes: a rewritten kernel needs a new line here.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qlutattn_patch.building import install, toolchain
from qlutattn_patch.building.presets import ARM64_TRIPLE, preset
from qlutattn_patch.system import console, process
from qlutattn_patch.system.errors import EXIT_EXPECTED, EXIT_OK, ExpectedError
from qlutattn_patch.workspace import Workspace

CPUS = ("neoverse-n2", "cortex-x2", "apple-m1")
ITERATIONS = 1000  # that llvm-mca simulates
MODELS_SINCE = 16  # the first LLVM with schedulers for neoverse-n2 and cortex-x2; older ones use cortex-a57's
PRODUCTS = 128 * 128 * 4  # of a tile and four query heads
FLAGS = ("-O3", "-DNDEBUG", "-std=c++17", "-ffp-contract=off", "-funroll-loops", "-fPIC")  # as cmake's Release


@dataclass(frozen=True)
class Part:
    """A function whose inner loop computes all PRODUCTS, and the number of products per instruction."""

    source: str  # below ggml/src/ggml-cpu
    function: str  # as C++ names it
    products: Mapping[str, int]  # by mnemonic


@dataclass(frozen=True)
class Kernel:
    """A row of the table: the functions that run for one tile."""

    name: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Isa:
    """A compile target, the kernels that it adds or speeds up, and the CPUs that lack it."""

    march: str
    kernels: tuple[Kernel, ...]
    lacks: tuple[str, ...] = ()


_SIMD = "qlutattn/tbl-simd.cpp"
_PRODUCTS = {"sdot": 16, "smull": 8, "smull2": 8, "smlal": 8, "smlal2": 8, "smmla": 32}
_LUT = Kernel("lut, 1 bit", (Part(_SIMD, "lut_rows<4>", {"tbl": 16 * 4}),))
_PLAIN = (
    _LUT,
    Kernel("dot, 1 bit", (Part(_SIMD, "bit_rows<4>", _PRODUCTS),)),
    Kernel("dot, 2 bits", (Part(_SIMD, "dot_rows<2, true, 4, 4>", _PRODUCTS),)),
    Kernel("dot, 4 bits", (Part(_SIMD, "dot_rows<4, true, 4, 4>", _PRODUCTS),)),
    Kernel("dot, 8 bits", (Part(_SIMD, "byte_rows<true, 4, 4>", _PRODUCTS),)),
)
_BLOCKS = (
    _LUT,
    *(
        Kernel(f"dot, {bits} bit{'s' * (bits > 1)}{of_rows}", (Part(_SIMD, f"block_rows<{bits}, {rows}>", _PRODUCTS),))
        for rows, of_rows in ((4, ""), (16, ", 16 rows"))
        for bits in (1, 2, 4, 8)
    ),
)
F16 = Kernel(
    "upstream f16 (half: K, half: V)",
    (Part("vec.cpp", "ggml_vec_dot_f16", {"fmla": 8}), Part("vec.cpp", "ggml_vec_mad_f16", {"fmla": 8})),
)
F16_MARCH = "armv8.2-a+dotprod+fp16"  # upstream at its best: arithmetic in f16
ISAS = (
    Isa("armv8-a", _PLAIN),
    Isa("armv8.2-a+dotprod+fp16", _BLOCKS),
    Isa("armv8.6-a+dotprod+fp16+i8mm", _BLOCKS, lacks=("apple-m1",)),
)
_BRANCH = re.compile(r"(?:b|b\.\w+|cbn?z|tbn?z)\s+(?:.*,\s*)?(\.L\w+)")
_ENDS = ("b", "br", "ret", "brk")  # the next instruction is only reached by a jump


@dataclass(frozen=True)
class Loop:
    """An innermost loop, and its number of iterations for a tile."""

    body: tuple[str, ...]
    times: float

    @property
    def vector(self) -> int:
        """The number of instructions on vector registers, loads and stores included."""
        return sum(1 for line in self.body if re.search(r"\b[vqdshbz]\d+\b", line))

    @property
    def scalar(self) -> Counter[str]:
        """The other instructions, by mnemonic."""
        return Counter(line.split()[0] for line in self.body if not re.search(r"\b[vqdshbz]\d+\b", line))


def innermost_loops(assembly: str, symbol: re.Pattern[str]) -> list[list[str]]:
    """The bodies of all innermost loops of a function."""
    blocks, follows = _flow(_function(assembly, symbol))
    loops = _natural_loops(follows)
    inner = [loop for loop in loops if not any(other < loop for other in loops)]
    return [[line for i in sorted(loop) for line in blocks[i]] for loop in inner]


def main_loop(assembly: str, part: Part) -> Loop:
    """The innermost loop with the most products per iteration; the others handle remainders."""
    bodies = innermost_loops(assembly, symbol(part.function))
    done = [sum(part.products.get(line.split()[0], 0) for line in body) for body in bodies]
    if not any(done):
        raise ExpectedError(
            f"No inner loop of {part.function} ({part.source}) has one of {', '.join(part.products)}.",
            "fix the table in scripts/mca_table.py",
        )
    most = max(done)
    return Loop(tuple(bodies[done.index(most)]), PRODUCTS / most)


def symbol(function: str) -> re.Pattern[str]:
    """The mangled name of a function, with numbers and booleans as template arguments, in any namespace."""
    name, _, arguments = function.rstrip(">").partition("<")
    truths = {"false": "Lb0E", "true": "Lb1E"}
    mangled = "".join(truths.get(value, f"Li{value}E") for value in arguments.replace(" ", "").split(",") if value)
    template = f"I{mangled}E" if mangled else ""
    return re.compile(rf"{name}|_Z(?:\w*[^\W\d])?{len(name)}{name}{template}\w*")


def cycles(mca: Path, cpu: str, body: Sequence[str]) -> float:
    """Cycles of one iteration, with all data in the L1 cache."""
    argv: list[str | Path] = [mca, f"-mtriple={ARM64_TRIPLE}", f"-mcpu={cpu}", f"-iterations={ITERATIONS}"]
    result = process.capture(argv, input="".join(f"{line}\n" for written in body for line in _as_simulated(written)))
    found = re.search(r"Total Cycles:\s+(\d+)", result.stdout)
    if result.status != 0 or not found:
        raise ExpectedError(f"llvm-mca cannot read a loop for {cpu}: {result.stderr.strip().splitlines()[:1]}")
    return int(found[1]) / ITERATIONS


def find_mca() -> tuple[Path, tuple[int, ...]]:
    """The newest llvm-mca on PATH (Debian numbers them), and its version."""
    found = {
        path
        for folder in os.get_exec_path()
        for path in Path(folder).glob("llvm-mca*")
        if re.fullmatch(r"llvm-mca(-\d+)?", path.name) and os.access(path, os.X_OK)
    }
    versions = []
    for path in sorted(found):
        match = re.search(r"LLVM version (\d+(?:\.\d+)*)", process.capture([path, "--version"]).stdout)
        if match:
            versions.append((tuple(int(part) for part in match[1].split(".")), path))
    if not versions:
        raise ExpectedError("There is no llvm-mca on PATH.", install.line(["llvm"]))
    version, path = max(versions)
    return path, version


def compile_to_assembly(workspace: Workspace, march: str, parts: Sequence[Part]) -> dict[str, str]:
    """The assembly of each source, with out-of-line copies of the functions of `parts`."""
    compilers = toolchain.find_compilers(preset("arm64"))
    if not (workspace.tree / "ggml" / "include" / "ggml-qlutattn.h").is_file():
        raise ExpectedError(f"The tree {workspace.tree} is not patched.", "qlutattn apply")
    above = workspace.tree / "ggml"
    here = above / "src" / "ggml-cpu"
    include = [f"-I{path}" for path in (above / "include", above / "src", here, here / "qlutattn")]
    made = {}
    for source in dict.fromkeys(part.source for part in parts):
        functions = dict.fromkeys(part.function for part in parts if part.source == source)
        kept = ", ".join(f"(void *) &{function}" for function in functions)
        # A function whose address is taken is compiled out of line, even if it is inlined elsewhere.
        text = f'#include "{here / source}"\n__attribute__((used)) void * const kept[] = {{ {kept} }};\n'
        with tempfile.TemporaryDirectory(prefix="qlutattn-") as folder:
            file = Path(folder) / "kept.cpp"
            file.write_text(text, encoding="utf-8")
            argv: list[str | Path] = [
                compilers.cxx,
                f"--target={ARM64_TRIPLE}",
                f"-march={march}",
                *FLAGS,
                *include,
                "-S",
                file,
                "-o",
                "-",
            ]
            result = process.capture(argv)
        if result.status != 0:
            toolchain.check_compilers(preset("arm64"), compilers)
            console.show(result.stderr.splitlines()[:20])
            raise ExpectedError(f"clang cannot compile {source} for {march}.", "fix the table in scripts/mca_table.py")
        made[source] = result.stdout
    return made


def table(workspace: Workspace) -> list[str]:
    """The lines of the table."""
    mca, version = find_mca()
    clang = toolchain.find_compilers(preset("arm64")).cxx_program
    upstream = [main_loop(compile_to_assembly(workspace, F16_MARCH, F16.parts)[p.source], p) for p in F16.parts]
    # Half of the tiles are K's and half V's, with one loop each.
    f16 = {cpu: sum(loop.times * cycles(mca, cpu, loop.body) for loop in upstream) / 2 for cpu in CPUS}

    lines = [
        "| kernel | built for | " + " | ".join(f"`{cpu}`" for cpu in CPUS) + " | vector instructions | others |",
        "|---|---|" + "---:|" * (len(CPUS) + 1) + "---|",
        _row(F16.name, F16_MARCH, {cpu: f"{f16[cpu]:.0f}" for cpu in CPUS}, upstream),
    ]
    seen: dict[str, list[tuple[str, ...]]] = {}
    for isa in ISAS:
        assembly = compile_to_assembly(workspace, isa.march, [part for kernel in isa.kernels for part in kernel.parts])
        for kernel in isa.kernels:
            loops = [main_loop(assembly[part.source], part) for part in kernel.parts]
            bodies = [loop.body for loop in loops]
            if seen.get(kernel.name) == bodies:
                continue  # no change by this instruction set
            seen[kernel.name] = bodies
            cells = dict.fromkeys(CPUS, "–")
            for cpu in (cpu for cpu in CPUS if cpu not in isa.lacks):
                mine = sum(loop.times * cycles(mca, cpu, loop.body) for loop in loops)
                cells[cpu] = f"{mine:.0f} ({f16[cpu] / mine:.1f} ×)"
            lines.append(_row(kernel.name, isa.march, cells, loops))
    numbers = ".".join(str(part) for part in version)
    lines += [
        "",
        f"Cycles of the inner loops per tile of 128 × 128 codes and four query heads, by llvm-mca {numbers},"
        f" all data in the L1 cache, compiled by {clang.version_line}; in brackets, the speed-up over upstream's"
        " f16 loops. Excluded on both sides: the code around the loops (sums of a row, scales and offsets, tables).",
    ]
    if version[0] < MODELS_SINCE:
        lines.append(
            f"This llvm-mca is older than {MODELS_SINCE}: it simulates neoverse-n2 and cortex-x2 as cortex-a57."
        )
    return lines


def _row(name: str, march: str, cells: Mapping[str, str], loops: Sequence[Loop]) -> str:
    shares = "; ".join(f"{loop.vector} of {len(loop.body)}" for loop in loops)
    rest = "; ".join(", ".join(f"{n} {what}" for what, n in loop.scalar.items()) for loop in loops)
    return f"| {name} | `{march}` | " + " | ".join(cells[cpu] for cpu in CPUS) + f" | {shares} | {rest} |"


def _function(assembly: str, symbol: re.Pattern[str]) -> list[str]:
    """The lines of a function, without comments and directives."""
    lines: list[str] = []
    inside = False
    for raw in assembly.splitlines():
        line = raw.split("//")[0].rstrip()
        label = re.fullmatch(r"(\w+):", line)
        if label and symbol.fullmatch(label[1]):
            inside = True
        elif inside and line.startswith(".Lfunc_end"):
            return lines
        elif inside and line and not re.match(r"\s+\.", line):
            lines.append(line)
    raise ExpectedError(f"The assembly has no function {symbol.pattern}.", "fix the table in scripts/mca_table.py")


def _flow(lines: Sequence[str]) -> tuple[list[list[str]], list[set[int]]]:
    """The basic blocks of a function, and the successors of each."""
    blocks: list[list[str]] = [[]]
    labels: dict[str, int] = {}
    for line in lines:
        if line.startswith(".L"):
            if blocks[-1]:
                blocks.append([])
            labels[line.rstrip(":")] = len(blocks) - 1
            continue
        blocks[-1].append(line.strip())
        if _BRANCH.fullmatch(line.strip()) or line.split()[0] in _ENDS:
            blocks.append([])
    follows = []
    for i, block in enumerate(blocks):
        last = block[-1] if block else ""
        branch = _BRANCH.fullmatch(last)
        after = set() if (last.split() or [""])[0] in _ENDS else {i + 1} & set(range(len(blocks)))
        follows.append(after | ({labels[branch[1]]} if branch else set()))
    return blocks, follows


def _natural_loops(follows: Sequence[set[int]]) -> list[frozenset[int]]:
    """The natural loops of a flow graph as sets of blocks, one per header."""
    everything = set(range(len(follows)))
    before = [{i for i in everything if j in follows[i]} for j in everything]
    dominators = [{0}, *(set(everything) for _ in range(1, len(follows)))]
    changed = True
    while changed:
        changed = False
        for i in range(1, len(follows)):
            new = {i} | (set.intersection(*(dominators[j] for j in before[i])) if before[i] else set())
            changed |= new != dominators[i]
            dominators[i] = new
    loops: dict[int, set[int]] = {}
    for end in everything:
        for header in follows[end] & dominators[end]:
            body = loops.setdefault(header, {header})
            todo = [end]
            while todo:
                block = todo.pop()
                if block not in body:
                    body.add(block)
                    todo += before[block]
    return [frozenset(body) for body in loops.values()]


def _as_simulated(line: str) -> list[str]:
    """An instruction rewritten for llvm-mca: branches go to a number, pointer updates become an addition.

    The simulator delays an updated pointer until its load or store is done, which no CPU does: upstream's second loop
    would appear three times slower than it is.
    """
    moved = re.fullmatch(r"(.*\[)(x\d+|sp)(?:\], (\S+)|, (\S+)\]!)", line)
    if moved:
        access, add = f"{moved[1]}{moved[2]}]", f"add {moved[2]}, {moved[2]}, {moved[3] or moved[4]}"
        return [access, add] if moved[3] else [add, access]
    return [re.sub(r"\.L\w+$", "#0", line)]


def main() -> int:
    """Print the table, or an error that says what is missing."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        for line in table(Workspace.find()):
            console.out(line)
    except ExpectedError as failure:
        console.error(failure.cause, failure.hint)
        return EXIT_EXPECTED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
