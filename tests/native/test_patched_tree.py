"""What is promised of the patched llama.cpp: each patch compiles, stock stays stock, align_attn notices any damage."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import effort
import fuzz
import gguf
import numpy as np
import pytest

from qlutattn_patch.building import toolchain
from qlutattn_patch.system import digests
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.workspace import Workspace

pytestmark = [pytest.mark.compiler, pytest.mark.xdist_group("clones of the tree")]

NATIVE = Path(__file__).parent
SMALL = [f"-DLLAMA_BUILD_{part}=OFF" for part in ("COMMON", "TESTS", "TOOLS", "EXAMPLES", "SERVER", "APP", "UI")] + [
    "-DLLAMA_USE_PREBUILT_UI=OFF"
]


def run(*argv: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a program that must succeed; its output."""
    done = subprocess.run(
        [str(arg) for arg in argv],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def clone(workspace: Workspace, to: Path) -> Path:
    """A pristine copy of the vendored base."""
    run("git", "clone", "-q", "--no-hardlinks", workspace.tree, to)
    run("git", "config", "user.name", "test", cwd=to)
    run("git", "config", "user.email", "test@localhost", cwd=to)
    return to


def build(tree: Path, build_dir: Path, targets: list[str], definitions: list[str]) -> None:
    """Configure and build, sharing ccache between the copies of the tree."""
    ccache = shutil.which("ccache")
    launchers = [f"-DCMAKE_{lang}_COMPILER_LAUNCHER={ccache}" for lang in ("C", "CXX")] if ccache else []
    env = {"CCACHE_BASEDIR": str(tree.parent), "CCACHE_NOHASHDIR": "1"}
    cmake, ninja = toolchain.find_cmake().path, toolchain.find_ninja().path
    maker = f"-DCMAKE_MAKE_PROGRAM={ninja}"
    run(
        cmake, "-S", tree, "-B", build_dir, "-G", "Ninja", maker, "-DGGML_CCACHE=OFF", *launchers, *definitions, env=env
    )
    run(cmake, "--build", build_dir, "--target", *targets, "-j2", env=env)


def run_native(source: str, tree: Path, build_dir: Path) -> str:
    """Compile one of our test programs against a build of ggml, and run it."""
    program = build_dir / Path(source).stem
    libraries = [f"-l{name}" for name in ("ggml", "ggml-cpu", "ggml-base")]
    where = [f"-I{tree / 'ggml' / 'include'}", f"-L{build_dir / 'bin'}", f"-Wl,-rpath,{build_dir / 'bin'}"]
    run(os.environ.get("CXX", "c++"), "-std=c++17", "-O1", NATIVE / source, *where, *libraries, "-o", program)
    return run(program)


@pytest.fixture(scope="module")
def workspace() -> Workspace:
    found = Workspace.find()
    assert (found.tree / ".git").exists(), "run: qlutattn vendor"
    return found


@pytest.fixture(scope="module")
def patched(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the base with all patches applied by git am."""
    tree = clone(workspace, tmp_path_factory.mktemp("patched") / "llama.cpp")
    run("git", "am", "-q", *series(workspace), cwd=tree)
    return tree


def series(workspace: Workspace) -> list[Path]:
    """The patch files, in order."""
    lines = (workspace.patches / "series").read_text(encoding="utf-8").splitlines()
    return [workspace.patches / line for line in lines if line and not line.startswith("#")]


def test_each_patch_compiles_on_its_own(workspace: Workspace, tmp_path: Path) -> None:
    tree = clone(workspace, tmp_path / "llama.cpp")
    fast = ["-DCMAKE_BUILD_TYPE=None", "-DCMAKE_C_FLAGS=-O0", "-DCMAKE_CXX_FLAGS=-O0", "-DGGML_LLAMAFILE=OFF"]
    for patch in series(workspace):
        run("git", "am", "-q", patch, cwd=tree)
        changed = run("git", "diff", "--name-only", "HEAD~1", cwd=tree).split()
        sources = [name for name in changed if name.endswith(".cpp")]
        models = [name for name in sources if name.startswith("src/models/")]  # the build compiles many as one
        apart = ("ggml/", "tools/align-attn/", "tools/qlutattn-common/", "src/models/")
        outside = [f"{tree / name}^" for name in sources if not name.startswith(apart)]
        targets = ["ggml", *outside, *(["align_attn"] if patch.stem == "align-attn" else [])]
        build(tree, tmp_path / "build", targets, ["-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF", *fast])
        includes = [f"-I{tree / folder}" for folder in ("src", "include", "ggml/include")]
        for name in models:
            run(os.environ.get("CXX", "c++"), "-std=c++17", "-fsyntax-only", *includes, tree / name)


@pytest.fixture(scope="module")
def stock(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digests of what upstream's own types and operations give before any patch."""
    folder = tmp_path_factory.mktemp("stock")
    pristine = clone(workspace, folder / "llama.cpp")
    build(pristine, folder / "pristine", ["ggml"], SMALL)
    digests = run_native("stock_digest.cpp", pristine, folder / "pristine")
    kinds = [line.split()[:2] for line in digests.splitlines()]
    assert len(kinds) > 100
    assert len({kind for what, kind in kinds if what == "quantize"}) > 20
    return digests


def different(expected: str, found: str) -> set[str]:
    """The types of whose digests some are not as they were."""
    lines = set(expected.splitlines()) ^ set(found.splitlines())
    return {line.split()[1] for line in lines}


def test_stock_operations_are_bit_identical(stock: str, patched: Path, tmp_path: Path) -> None:
    for state in ("OFF", "ON"):
        build(patched, tmp_path / state, ["ggml"], [*SMALL, f"-DGGML_QLUTATTN={state}"])
        found = run_native("stock_digest.cpp", patched, tmp_path / state)
        assert different(stock, found) == set(), f"GGML_QLUTATTN={state}"
        assert found == stock
        refusals = run_native("refusals.cpp", patched, tmp_path / state).splitlines()
        wrong_sides = [f"types_{sides} exit=3" for sides in ("v_and_v", "k_and_k", "f16_and_k")]
        assert refusals[-4:] == ["types_right exit=0", *wrong_sides]
        assert len(refusals) == 17
        for line in refusals[:-4]:
            works = state == "ON" and line.startswith(("cpy ", "unpack ", "attention "))
            assert line.endswith("supports=1 status=0 words=0" if works else "supports=0 status=-1 words=1"), (
                state,
                line,
            )
    assert not list((tmp_path / "OFF").rglob("*align*.o"))


def objects(folder: Path) -> dict[str, str]:
    """The digest of each object file of a build."""
    return {path.relative_to(folder).as_posix(): digests.of_file(path) for path in folder.rglob("*.o")}


def test_without_the_graph_profiler_no_object_code_differs(workspace: Workspace, tmp_path: Path) -> None:
    """Not even where an assertion names its line; with it, only that of the threads' loop does."""
    tree = clone(workspace, tmp_path / "llama.cpp")
    patches = series(workspace)
    at = [patch.stem for patch in patches].index("graph-profiler")
    run("git", "am", "-q", *patches[:at], cwd=tree)
    shutil.rmtree(tree / ".git")  # the commit is compiled in, and whether files have changed
    build(tree, tmp_path / "build", ["ggml"], SMALL)
    before = objects(tmp_path / "build")
    assert len(before) > 30
    run("git", "apply", patches[at], cwd=tree)
    build(tree, tmp_path / "build", ["ggml"], SMALL)
    assert objects(tmp_path / "build") == before
    build(tree, tmp_path / "build", ["ggml"], [*SMALL, "-DGGML_GRAPH_PROFILER=ON"])
    profiled = objects(tmp_path / "build")
    assert [name for name in before if profiled[name] != before[name]] == [
        "ggml/src/CMakeFiles/ggml-cpu.dir/ggml-cpu/ggml-cpu.c.o"
    ]
    assert {Path(name).parent.name for name in profiled.keys() - before.keys()} == {"profiler"}


QUANTS = "ggml/src/ggml-quants.c"
STOCK_MUTANTS = {
    "how q4_0 chooses its scale": (QUANTS, "const float d  = max / -8;", "const float d  = max / -7;", {"q4_0"}),
    "how tq2_0 is read": (QUANTS, "*y++ = (float) (q - 1) * d;", "*y++ = (float) (q - 2) * d;", {"tq2_0"}),
}


@pytest.mark.parametrize("name", STOCK_MUTANTS)
def test_the_digests_notice(name: str, stock: str, patched: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    file, old, new, types = STOCK_MUTANTS[name]
    folder = tmp_path_factory.getbasetemp() / "stock mutants"  # one build for all of them
    text = (patched / file).read_text(encoding="utf-8")
    assert old in text
    (patched / file).write_text(text.replace(old, new), encoding="utf-8")
    try:
        build(patched, folder, ["ggml"], SMALL)
        assert different(stock, run_native("stock_digest.cpp", patched, folder)) == types
    finally:
        (patched / file).write_text(text, encoding="utf-8")


PACK = "ggml/src/ggml-cpu/qlutattn/qlutattn-pack.cpp"
PACKED = "pack_tile(*config, source, to);"
PACK_SIMD = "ggml/src/ggml-cpu/qlutattn/pack-simd.cpp"
UNPACK = "ggml/src/ggml-cpu/qlutattn/unpack.cpp"
UNPACKED = "store_row(row, type, (char *) dst + token * nb_row);"
TBL = "ggml/src/ggml-cpu/qlutattn/tbl.cpp"
ASSERTED = "GGML_ASSERT(n_rows <= QLUTATTN_ROWS);"
ATTEND = "ggml/src/ggml-cpu/qlutattn/attend.cpp"
LOADED = "f32::from_f16(config.offsets(tile) + span.lane0 + i) : f32::broadcast(0.0f));\n    }\n"
CONFIG = "ggml/src/ggml-cpu/qlutattn/qlutattn-config.cpp"
MUTANTS = {
    "one packed code": (PACK, PACKED, f"{PACKED} ((uint8_t *) to)[777] ^= 1;"),
    "one packed scale": (PACK, PACKED, f"{PACKED} config->scales(to)[5] += 20;"),
    "one packed offset": (PACK, PACKED, f"{PACKED} if (config->has_offset) {{ config->offsets(to)[5] += 20; }}"),
    "one summand of the vector packer's tree": (PACK_SIMD, "return mul(v, v);", "return i == 9 ? v : mul(v, v);"),
    "where the vector packer rounds": (PACK_SIMD, "broadcast(0.5f)", "broadcast(0.25f)"),
    "one unpacked value": (UNPACK, UNPACKED, f"{UNPACKED} ((char *) dst)[1025] ^= 1;"),
    "one level of 4 bits": (CONFIG, "-122, -92, ", "-122, -98, "),
    "one level of 2 bits": (CONFIG, "-120, -36, ", "-120, -44, "),
    "one factor of 4 bits": (CONFIG, "-61, -46, ", "-61, -45, "),
    "one factor of 2 bits": (CONFIG, "-10, -3, ", "-10, -4, "),
    "one code that attention reads": (
        TBL,
        ASSERTED,
        f"{ASSERTED}\n    alignas(64) uint8_t damaged[2 * 8704];\n"
        "    memcpy(damaged, tile, config.tile_bytes());\n    damaged[777] ^= 1;\n    tile = damaged;\n",
    ),
    "one scale that attention reads": (ATTEND, LOADED, f"{LOADED}    block.lane_scale[5] *= 1.02f;\n"),
}


@pytest.fixture(scope="module")
def aligned(patched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The patched tree's build folder, with an align_attn that passes."""
    folder = tmp_path_factory.mktemp("mutants")
    build(patched, folder, ["align_attn"], SMALL)
    run(folder / "bin" / "align_attn", "--quick")
    return folder


def test_without_the_toolkit_only_the_compiler_is_known(aligned: Path) -> None:
    said = dict(line.split(maxsplit=1) for line in run(aligned / "bin" / "align_attn", "--version").splitlines()[1:])
    assert {said[name] for name in ("templates", "series", "upstream", "tree")} == {"unknown (built without qlutattn)"}
    assert said["compiler"] != "unknown"
    assert said["kernel_flags"]
    assert said["isa"]


@pytest.mark.parametrize("name", MUTANTS)
def test_align_notices(name: str, patched: Path, aligned: Path) -> None:
    file, old, new = MUTANTS[name]
    source = patched / file
    text = source.read_text(encoding="utf-8")
    assert old in text
    source.write_text(text.replace(old, new), encoding="utf-8")
    try:
        build(patched, aligned, ["align_attn"], SMALL)
        done = subprocess.run([aligned / "bin" / "align_attn", "--quick"], capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stdout[-2000:]
        assert "FAIL" in done.stdout
    finally:
        source.write_text(text, encoding="utf-8")


def test_the_vector_packer_gives_the_bytes_of_the_scalar_one(patched: Path, aligned: Path, tmp_path: Path) -> None:
    build(patched, aligned, ["align_attn"], SMALL)  # the last mutant may still be in it
    dumps = []
    for kernel in ("", "dot-scalar"):
        dump = tmp_path / f"{kernel or 'default'}.gguf"
        run(aligned / "bin" / "align_attn", "--quick", "--dump", dump, env={"GGML_QLUTATTN_KERNEL": kernel})
        tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(dump).tensors}
        dumps.append({name: data for name, data in tensors.items() if name.endswith((".kp", ".vp"))})
    vector, scalar = dumps
    assert len(vector) > 50
    assert vector.keys() == scalar.keys()
    for name in vector:
        np.testing.assert_array_equal(vector[name], scalar[name], err_msg=name)


@pytest.fixture(scope="module")
def fuzzable(patched: Path, workspace: Workspace) -> Workspace:
    """The patched tree, where clang and its libFuzzer are there."""
    try:
        fuzz.check_tools()
    except ExpectedError as lacking:
        pytest.skip(f"{lacking.cause} To get it: {lacking.hint}")
    return Workspace(workspace.root, patched)


@pytest.mark.nightly
def test_the_fuzzer_finds_nothing(fuzzable: Workspace, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    finding = fuzz.fuzz(fuzz.build(fuzzable, "attn"), tmp_path, seconds=effort.most(20, 600), seed=effort.most(1, 0))
    said = capfd.readouterr().err
    assert finding is None, said[-4000:]
    executed = re.search(r"number_of_executed_units:\s*(\d+)", said)
    assert executed
    assert int(executed[1]) > fuzz.SEEDS


CALL = "ggml_compute_forward_flash_attn_ext_mixed(params, tensor);"
FUZZ_MUTANTS = {
    "a byte behind a tile": (
        PACK,
        PACKED,
        f"{PACKED} ((uint8_t *) to)[config->tile_bytes()] = 0;",
        "AddressSanitizer|packed",
    ),
    "a result that depends on the threads": (
        "ggml/src/ggml-cpu/ggml-cpu.c",
        CALL,
        f"{CALL} if (params->nth > 1 && params->ith == 0) {{ ((float *) tensor->data)[0] += 0.125f; }}",
        "threads give another result",
    ),
    "a forgotten mask": (
        "ggml/src/ggml-qlutattn.cpp",
        "result->src[7] = maskp;",
        "result->src[7] = n_kv > 0 ? maskp : NULL;",
        "must be zeros|outside of what the visible values span",
    ),
}


@pytest.mark.parametrize("name", FUZZ_MUTANTS)
def test_the_fuzzer_notices(
    name: str, patched: Path, fuzzable: Workspace, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, old, new, words = FUZZ_MUTANTS[name]
    source = patched / file
    text = source.read_text(encoding="utf-8")
    assert text.count(old) == 1
    source.write_text(text.replace(old, new), encoding="utf-8")
    try:
        finding = fuzz.fuzz(fuzz.build(fuzzable, "attn"), tmp_path, seconds=60, seed=1)
    finally:
        source.write_text(text, encoding="utf-8")
    said = capfd.readouterr().err
    assert finding, said[-4000:]
    assert re.search(words, said), said[-4000:]
