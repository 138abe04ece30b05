"""The graph profiler: what it records of graphs that are known, with OpenMP's threads and with ggml's own."""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import trace_format
from trace_format import Slice

from qlutattn_patch.building import cmake, toolchain
from qlutattn_patch.building.presets import PROFILE
from qlutattn_patch.commands import main
from qlutattn_patch.workspace import Workspace

pytestmark = pytest.mark.compiler

SOURCE = Path(__file__).with_name("graph_profiler.cpp")
RING = 1 << 16  # events of a thread


def link(workspace: Workspace, bin: Path, program: Path, *flags: str) -> Path:
    libraries = [f"-l{name}" for name in ("ggml", "ggml-cpu", "ggml-base")]
    where = [f"-I{workspace.tree / 'ggml' / 'include'}", f"-L{bin}", f"-Wl,-rpath,{bin}"]
    argv = [os.environ.get("CXX", "c++"), "-std=c++17", "-O1", *flags, SOURCE, *where, *libraries, "-pthread"]
    subprocess.run([str(word) for word in [*argv, "-o", program]], check=True)
    return program


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver with the preset's ggml, whose threads are OpenMP's."""
    assert main.run(["apply"]) == 0
    workspace = Workspace.find()
    built = cmake.build(workspace, PROFILE, ("ggml",))
    return link(workspace, built.bin, tmp_path_factory.mktemp("openmp") / "graph_profiler")


@pytest.fixture(scope="module")
def own_threads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver with ggml's own threads, under ThreadSanitizer."""
    assert main.run(["apply"]) == 0
    workspace, folder = Workspace.find(), tmp_path_factory.mktemp("own")
    flags = "-O1 -g -DNDEBUG -fsanitize=thread"
    definitions = {
        **{f"LLAMA_BUILD_{part}": "OFF" for part in ("COMMON", "TESTS", "TOOLS", "EXAMPLES", "SERVER", "APP", "UI")},
        **{"LLAMA_USE_PREBUILT_UI": "OFF", "GGML_CCACHE": "OFF", "CMAKE_BUILD_TYPE": "None"},
        **{"GGML_GRAPH_PROFILER": "ON", "GGML_OPENMP": "OFF", "GGML_LLAMAFILE": "OFF"},
        **{"CMAKE_C_FLAGS": flags, "CMAKE_CXX_FLAGS": flags, "CMAKE_MAKE_PROGRAM": str(toolchain.find_ninja().path)},
    }
    if ccache := cmake.process.find("ccache"):
        definitions |= dict.fromkeys(("CMAKE_C_COMPILER_LAUNCHER", "CMAKE_CXX_COMPILER_LAUNCHER"), str(ccache))
    tool = toolchain.find_cmake().path
    made = [f"-D{name}={value}" for name, value in definitions.items()]
    subprocess.run([tool, "-S", workspace.tree, "-B", folder, "-G", "Ninja", *made], check=True, capture_output=True)
    subprocess.run([tool, "--build", folder, "--target", "ggml", "-j2"], check=True, capture_output=True)
    return link(workspace, folder / "bin", folder / "graph_profiler", "-fsanitize=thread")


def run(program: Path, file: Path, *work: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """What the driver says while its profile goes into this file."""
    env = {**os.environ, "GGML_PROFILE": str(file), "GGML_NO_BACKTRACE": "1", "TSAN_OPTIONS": "exitcode=66"}
    done = subprocess.run([program, *work], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr[-4000:]
    return done


def recorded(program: Path, folder: Path, *work: str, status: int = 0) -> tuple[dict[str, Any], dict[int, list[Slice]]]:
    """The trace of the driver's work, and the slices of each thread, all in their form."""
    run(program, folder / "trace.json", *work, status=status)
    trace = trace_format.load(folder / "trace.json")
    return trace["profile"], trace_format.slices(trace)


def nodes(threads: dict[int, list[Slice]], ith: int = 0) -> list[tuple[Slice, Slice]]:
    """The nodes of the threads with this place in their teams, each with its wait."""
    found = []
    for outermost in threads.values():
        flat = [inner for one in outermost for inner in ([one] if one.category != "graph" else one.inner)]
        assert [one.category for one in flat[::2]] == ["node"] * (len(flat) // 2)
        assert [one.category for one in flat[1::2]] == ["wait"] * (len(flat) // 2)
        found += [(node, wait) for node, wait in zip(flat[::2], flat[1::2], strict=True) if node.args["ith"] == ith]
    return found


def test_bytes_and_operations_are_those_of_the_nodes(program: Path, tmp_path: Path) -> None:
    _, threads = recorded(program, tmp_path, "2", "nodes")
    found = {node.name: (node.args["bytes"], node.args["flops"]) for node, _ in nodes(threads)}
    x = 64 * 8 * 4
    attention = 2 * 4 * 3 * 64 * 4 + 2 * 2 * 256 * 64 * 2 + 256 * 3 * 2
    assert found == {
        "MUL_MAT q8_0": (32 * 2 * 34 + x + 32 * 8 * 4, 2 * 64 * 32 * 8),
        "GET_ROWS f16": (5 * 64 * 2 + 5 * 4 + 5 * 64 * 4, 0),
        "SET_ROWS f32 to f16": (64 * 4 + 8 + 64 * 2, 0),
        "CPY f32 to f16": (x + x // 2, 0),
        "RMS_NORM+MUL": (x + 64 * 4 + x, 0),
        "ADD": (2 * x, 0),  # a source that is given twice is read once
        "SILU": (2 * x, 0),
        "SWIGLU": (x + x // 2, 0),
        "FLASH_ATTN_EXT f16": (attention, 2 * 2 * 256 * 64 * 4 * 3),
        "MUL_MAT_ID f16": (2 * 64 * 32 * 2 + 64 * 2 * 4 + 2 * 4 + 32 * 2 * 4, 2 * 64 * 32 * 2),
    }
    names = {node.args["name"] for node, _ in nodes(threads)}
    assert names == {f"out?{i}" for i in range(10)}
    (shape,) = {node.args["shape"] for node, _ in nodes(threads) if node.name == "MUL_MAT q8_0"}
    assert shape == "32 x 8 x 1 x 1"


@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_sums_are_those_of_the_events(n_threads: int, program: Path, tmp_path: Path) -> None:
    sums, threads = recorded(program, tmp_path, str(n_threads), "layers")
    assert [one["kind"] for one in sums["sections"]] == ["decode", "small batch", "prefill"]
    assert [(one["graphs"], one["tokens"]) for one in sums["sections"]] == [(3, 3), (1, 4), (1, 64)]
    decode = sums["sections"][0]
    assert {row["name"]: row["calls"] for row in decode["layers"]} == {"0": 9, "1": 9, "none": 3}
    assert {row["name"]: row["calls"] for row in decode["operations"]} == {
        "MUL_MAT f32": 9,
        "CPY f32 to f16": 6,
        "ADD": 6,
    }
    assert len(threads) == n_threads
    assert sums["events"] == 7 * 5 * n_threads
    events: dict[str, int] = defaultdict(int)
    for node, wait in nodes(threads):
        events[node.name] += node.length + wait.length
    rows = [row for section in sums["sections"] for row in section["operations"]]
    for name, time in events.items():
        assert sum(row["ms"] for row in rows if row["name"] == name) == pytest.approx(time / 1e6, rel=1e-3, abs=1e-4)
    for ith in range(n_threads):
        assert [node.args["node"] for node, _ in nodes(threads, ith)] == list(range(7)) * 5


def test_nodes_and_waits_fill_the_graphs(program: Path, tmp_path: Path) -> None:
    """Of a thread's time from its first node to its last barrier nothing is left out."""
    _, threads = recorded(program, tmp_path, "2", "many", "50")
    for outermost in threads.values():
        for graph in (one for one in outermost if one.category == "graph"):
            assert sum(one.length for one in graph.inner) == graph.inner[-1].end - graph.inner[0].begin
            assert (graph.args["nodes"], graph.args["threads"], graph.args["aborted"]) == (7, 2, False)


def test_a_full_ring_keeps_the_newest_and_all_sums(program: Path, tmp_path: Path) -> None:
    graphs = 12000
    sums, threads = recorded(program, tmp_path, "1", "many", str(graphs))
    assert sums["events"] == 7 * graphs
    kept = nodes(threads)
    assert sums["events"] - sums["dropped"] == len(kept)
    assert RING // 2 - 16 < len(kept) <= RING
    (decode,) = sums["sections"]
    assert decode["graphs"] == graphs
    assert (
        sum(row["calls"] for row in decode["operations"]) == sum(row["calls"] for row in decode["layers"]) == 7 * graphs
    )
    said = run(program, tmp_path / "again.json", "1", "many", str(graphs)).stderr
    assert f"the oldest {sums['dropped']} only in the sums" in said


def test_a_graph_that_is_larger_than_the_ring(program: Path, tmp_path: Path) -> None:
    sums, threads = recorded(program, tmp_path, "1", "large", str(RING + 1000))
    assert sums["dropped"] == 0
    assert [node.args["node"] for node, _ in nodes(threads)] == list(range(RING + 1000))
    assert sums["sections"][0]["kind"] == "other"


def test_two_callers_at_once(program: Path, tmp_path: Path) -> None:
    sums, threads = recorded(program, tmp_path, "2", "two")
    assert sum(section["graphs"] for section in sums["sections"]) == 205
    assert sums["events"] == 2 * 7 * 205
    assert len(nodes(threads, 0)) == len(nodes(threads, 1)) == 7 * 205


@pytest.mark.parametrize("n_threads", ["1", "2"])
def test_a_graph_that_is_stopped_leaves_a_trace(n_threads: str, program: Path, tmp_path: Path) -> None:
    """The driver ends in a way that runs nothing at exit."""
    sums, threads = recorded(program, tmp_path, n_threads, "stopped")
    assert [node.name for node, _ in nodes(threads)] == ["MUL_MAT f32", "CPY f32 to f16", "ADD"]
    (graph,) = (one for outermost in threads.values() for one in outermost if one.category == "graph")
    assert graph.args["aborted"] is True
    assert sums["events"] == 3 * int(n_threads)


@pytest.mark.parametrize("n_threads", ["1", "2"])
def test_a_node_that_fails_leaves_a_trace_with_it(n_threads: str, program: Path, tmp_path: Path) -> None:
    """Also where both threads fail in it: the first that does writes the trace, and calls are those of thread 0."""
    sums, threads = recorded(program, tmp_path, n_threads, "aborted", status=-6)
    n_aborted = []
    for ith in range(int(n_threads)):
        found = [node for node, _ in nodes(threads, ith)]
        last = [node for node in found if "aborted" in node.args]
        assert all((node.name, node.args["name"], node is found[-1]) == ("MAP_CUSTOM1", "bad-7", True) for node in last)
        assert len(found) == 7 + len(last)
        n_aborted.append(len(last))
    assert any(n_aborted)
    calls = {row["name"]: row["calls"] for row in sums["sections"][0]["layers"]}
    assert calls == {"0": 3, "1": 3, "7": n_aborted[0], "none": 1}


def test_the_table_has_the_same_sums(program: Path, tmp_path: Path) -> None:
    said = run(program, tmp_path / "table.txt", "1", "layers").stderr
    assert "35 nodes of 1 thread(s) are in" in said
    table = (tmp_path / "table.txt").read_text(encoding="ascii")
    assert "\ndecode: 3 graph(s) of 3 token(s) on 1 thread(s), " in table
    rows = [line.rsplit(maxsplit=7) for line in table.splitlines() if line.startswith("MUL_MAT f32")]
    assert [row[1] for row in rows] == ["9", "3", "3"]
    assert all(len(row) == 8 and row[3].endswith("%") for row in rows)
    layers = [line.split()[:2] for line in table.split("\nlayer")[1].splitlines()[1:4]]
    assert layers == [["0", "9"], ["1", "9"], ["none", "3"]]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("profile", "'{}' ends neither in .json (a trace) nor in .txt (a table)."),
        (".json", "'{}' cannot be written: Is a directory."),
        ("no/trace.json", "'{}' cannot be written: No such file or directory."),
    ],
)
def test_a_path_that_cannot_be_is_told_and_the_graphs_computed(
    name: str, says: str, program: Path, tmp_path: Path
) -> None:
    (tmp_path / ".json").mkdir()
    said = run(program, tmp_path / name, "1", "layers").stderr
    assert said == f"GGML_PROFILE: no profile is made, as {says.format(tmp_path / name)}\n"


def test_a_disk_that_is_full_is_told(program: Path, tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    (tmp_path / "trace.json").symlink_to(full)
    said = run(program, tmp_path / "trace.json", "1", "layers").stderr
    assert "could not be written to" in said
    assert "No space left on device." in said


def test_unasked_nothing_is_written(program: Path, tmp_path: Path) -> None:
    done = subprocess.run([program, "2", "layers"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr, list(tmp_path.iterdir())) == ("", "", [])


@pytest.mark.slow
@pytest.mark.parametrize("work", [("nodes",), ("layers",), ("many", "300"), ("two",), ("stopped",)], ids=" ".join)
def test_ggmls_own_threads_record_without_a_race(work: tuple[str, ...], own_threads: Path, tmp_path: Path) -> None:
    sums, threads = recorded(own_threads, tmp_path, "3", *work)
    assert sums["events"] % 3 == 0
    for ith in range(3):
        assert len(nodes(threads, ith)) == (sums["events"] - sums["dropped"]) // 3
