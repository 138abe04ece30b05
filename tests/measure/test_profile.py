"""`qlutattn profile`: what is made of the sums in a trace, what is said of a tool that leaves none, and real runs."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path
from typing import Any

import documents
import fake_tools
import pytest
import tiny_models
import trace_format

from qlutattn_patch.building import cmake
from qlutattn_patch.building.presets import PROFILE
from qlutattn_patch.commands import main
from qlutattn_patch.measure import plots
from qlutattn_patch.measure import profile as profile_module
from qlutattn_patch.measure.documents import Trace
from qlutattn_patch.measure.profile import Result, result_of
from qlutattn_patch.system.records import typed
from qlutattn_patch.workspace import Workspace


def row(name: str, calls: int, ms: float, *, bytes: int = 0, flops: int = 0, wait: float = 0.0) -> dict[str, Any]:
    return {"name": name, "calls": calls, "ms": ms, "busy_ms": ms / 2, "bytes": bytes, "flops": flops, "wait": wait}


SUMS: dict[str, Any] = {
    "schema": 1,
    "clock": "steady clock",
    "wall_ms": 20.0,
    "events": 130,
    "dropped": 0,
    "sections": [
        {
            "kind": "decode",
            "graphs": 4,
            "tokens": 4,
            "threads": 2,
            "ms": 10.0,
            "operations": [
                row("MUL_MAT f16", 60, 6.0, bytes=12_000_000, flops=24_000_000, wait=0.25),
                row("ADD", 40, 3.0, bytes=300_000),
            ],
            "layers": [row("0", 50, 4.0), row("none", 50, 5.0)],
        },
        {
            "kind": "other",
            "graphs": 2,
            "tokens": 0,
            "threads": 1,
            "ms": 5.0,
            "operations": [row(f"OP{i}", 2, 0.4) for i in range(12)],
            "layers": [row("none", 24, 4.8)],
        },
    ],
}


def result(**changed: Any) -> Result:
    trace = typed({"profile": {**SUMS, **changed}, "traceEvents": []}, Trace)
    return result_of(trace, ["llama-bench", "-n", "4"], Path("/t/llama-bench.json"), 0)


def test_the_table_has_rates_and_shares_and_what_is_outside_of_nodes() -> None:
    lines = result().operations()
    assert lines[0] == ["decode", "MUL_MAT f16", "60", "6.000", "60.0%", "100.00", "2.00", "4.00", "25.0%"]
    assert lines[1] == ["decode", "ADD", "40", "3.000", "30.0%", "75.00", "0.10", "-", "0.0%"]
    assert lines[2] == ["decode", "(start and end)", "", "1.000", "10.0%", "", "", "", ""]
    assert lines[3] == [""] * 9
    assert [line[1] for line in result().layers()] == ["0", "none", "(start and end)", "", "none", "(start and end)"]


def test_the_summary_says_how_much_is_in_graphs_and_what_is_gone() -> None:
    decode, other, inside, trace = result().summary()
    assert (
        decode
        == "decode: 4 graph(s) of 4 token(s) on 2 thread(s), 10.0 ms, 2.500 ms per token; 90.0% in nodes and waits"
    )
    assert other.endswith("5.0 ms; 96.0% in nodes and waits")
    assert inside == "75.0% of 20.0 ms is in graphs"
    assert trace.endswith("chrome://tracing")
    assert "the oldest 30 of 130 nodes are only in the sums" in result(dropped=30).summary()[-1]


def test_a_plot_shows_operations_and_layers_and_is_the_same_each_time(tmp_path: Path) -> None:
    path = tmp_path / "ä b.svg"
    plots.plot_profile(result(), path)
    first = path.read_bytes()
    assert ET.fromstring(first).tag.endswith("svg")
    shown = ("decode, 2 thread(s): 2.500 ms per token", "MUL_MAT f16", "ADD", "start and end", "others")
    assert all(f"<!-- {text} -->".encode() in first for text in shown)
    plots.plot_profile(result(), path)
    assert path.read_bytes() == first


# a tool's part is played by programs that leave prepared traces


class Fake:
    """A built llama-bench that does what a test says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.workspace = Workspace(folder, folder / "vendor" / "llama.cpp")
        self.tree = cmake.BuildTree(self.workspace.build_dir(PROFILE))
        self.tree.bin.mkdir(parents=True)
        self.built: list[tuple[Any, ...]] = []
        monkeypatch.setattr(cmake, "build", lambda *given: self.built.append(given) or self.tree)
        monkeypatch.setattr(profile_module.Workspace, "find", lambda *_: self.workspace)

    def make(self, code: str) -> None:
        head = "import json, os, sys\nargv, file = sys.argv[1:], os.environ['GGML_PROFILE']\n"
        fake_tools.write_program(self.tree.bin / "llama-bench", f"{head}{code}\n")


LEAVES = f"json.dump({{'profile': json.loads({json.dumps(SUMS)!r}), 'traceEvents': []}}, open(file, 'w')); print(*argv)"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake(tmp_path / "Größe 1", monkeypatch)
    made.make(LEAVES)
    return made


@pytest.mark.parametrize("dashes", [["--"], []], ids=["--", "without"])
def test_what_follows_the_tool_is_the_tools(fake: Fake, dashes: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main.run(["profile", "--json", *dashes, "llama-bench", "-m", "M.gguf", "--json", "--plot"]) == 0
    said = capfd.readouterr()
    found = json.loads(said.out)
    documents.check(found)
    assert found["argv"] == ["llama-bench", "-m", "M.gguf", "--json", "--plot"]
    assert said.err == "-m M.gguf --json --plot\n"  # the tool's own output
    assert found["trace"] == str(fake.tree.path / "traces" / "llama-bench.json")
    assert [name for _, preset, (name,) in fake.built] == ["llama-bench"]
    assert {preset for _, preset, _ in fake.built} == {PROFILE}
    assert found["sections"][0]["operations"][0]["gbps"] == 2


def test_the_tables_are_printed(fake: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "token.PNG"
    assert main.run(["profile", "--plot", str(picture), "--trace", str(tmp_path / "t.json"), "llama-bench"]) == 0
    out = capfd.readouterr().out
    assert re.search(r"^graphs +operation +calls +ms +share +µs/call +GB/s +GFLOP/s +wait$", out, re.MULTILINE)
    assert re.search(r"^decode +MUL_MAT f16 +60 +6\.000 +60\.0% +100\.00 +2\.00 +4\.00 +25\.0%$", out, re.MULTILINE)
    assert re.search(r"^graphs +layer +calls", out, re.MULTILINE)
    assert str(tmp_path / "t.json") in out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_tool_that_fails_is_a_failed_check_after_its_table(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    fake.make(f"{LEAVES}\nsys.exit(7)")
    assert main.run(["profile", "llama-bench"]) == 1
    said = capfd.readouterr()
    assert "MUL_MAT f16" in said.out
    assert "error: llama-bench ended with exit status 7." in said.err
    assert main.run(["profile", "--json", "llama-bench"]) == 1
    found = json.loads(capfd.readouterr().out)
    documents.check(found)
    assert (found["ok"], found["status"]) == (False, 7)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("pass", "llama-bench computed no graph on the CPU."),
        ("sys.exit(3)", "llama-bench ended with exit status 3 and computed no graph on the CPU."),
        ("open(file, 'w')", "ended with exit status 0 and left no readable trace in"),
        ("open(file, 'w').write('{\"profile\": {\"schema\": 2}}')", "left no readable trace in"),
    ],
)
def test_no_trace_is_told(code: str, says: str, fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    assert main.run(["profile", "llama-bench"]) == 0  # one of before must not be taken for it
    fake.make(code)
    assert main.run(["profile", "llama-bench"]) == 3
    assert says in capfd.readouterr().err


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--trace", "t.txt", "llama-bench"], "is not a file name for a trace: it must end in .json."),
        (["--trace", "no/t.json", "llama-bench"], "--trace: there is no folder"),
        (["--plot", "t.pdf", "llama-bench"], "it must end in .svg or .png."),
        (["--", "-m"], "'-m' is not the name of a tool of llama.cpp."),
        (["./llama-bench"], "'./llama-bench' is not the name of a tool of llama.cpp."),
    ],
)
def test_what_cannot_be_is_told_before_anything_runs(
    argv: list[str], says: str, fake: Fake, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["profile", *argv]) == 2
    assert says in " ".join(capfd.readouterr().err.split())
    assert fake.built == []


# real ones


@pytest.fixture(scope="module")
def patched_tree() -> None:
    """The project's own vendored tree, with the patches in it."""
    assert main.run(["apply"]) == 0


@pytest.mark.compiler
@pytest.mark.usefixtures("patched_tree")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_model_with_a_mixed_cache(threads: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The trace is in its form, no time of a thread is lost, and the packing, a graph of its own, is in it."""
    model = tiny_models.write_model(tmp_path / "M.gguf")
    caches = ["-ctk", "qlutattn_k4_128x128", "-ctv", "qlutattn_v4_128x128"]
    argv = ["profile", "--json", "--trace", str(tmp_path / "t.json"), "--", "llama-bench", "-m", str(model), *caches]
    capfd.readouterr()
    assert main.run([*argv, "-p", "64", "-n", "8", "-d", "1536", "-r", "1", "-t", str(threads)]) == 0
    found = json.loads(capfd.readouterr().out)
    documents.check(found)
    sections = {section["kind"]: section for section in found["sections"]}
    assert sections.keys() == {"decode", "prefill", "other"}
    names = {row["name"] for row in sections["decode"]["operations"]}
    assert {"FLASH_ATTN_EXT_MIXED k4 v4", "RMS_NORM+MUL", "SWIGLU"} <= names
    assert {"CPY f16 to k4", "CPY f16 to v4"} <= {row["name"] for row in sections["other"]["operations"]}
    assert [row["name"] for row in sections["decode"]["layers"]] == ["0", "1", "none"]
    assert sections["decode"]["threads"] == threads
    outermost = trace_format.slices(trace_format.load(tmp_path / "t.json"))
    if threads == 1:  # several on a busy machine may wait for one another to begin, as those that pack may
        graphs = [one for slices in outermost.values() for one in slices if one.name in ("decode", "prefill")]
        assert len(graphs) == sections["decode"]["graphs"] + sections["prefill"]["graphs"]
        covered = sum(inner.length for graph in graphs for inner in graph.inner)
        assert covered > 0.98 * sum(graph.length for graph in graphs)
        assert sections["decode"]["covered"] > 0.98


@pytest.mark.slow
@pytest.mark.compiler
@pytest.mark.usefixtures("patched_tree")
def test_rates_are_those_of_bench_attn(tmp_path: Path) -> None:
    """In one run: a node's highest rate in the trace, and what bench_attn makes of its own shortest time.

    Decode alone: bench_attn counts keys and values, and in prefill the rest is as much.
    """
    trace, own = tmp_path / "t.json", tmp_path / "own.json"
    argv = ["--work", "decode", "--keys", "2048", "--threads", "1", "--types", "f16,K4V4,K2V2,K1V1"]
    assert main.run(["profile", "--trace", str(trace), "--", "bench_attn", *argv, "--json", str(own)]) == 0
    nodes: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for event in trace_format.load(trace)["traceEvents"]:
        if event.get("cat") == "node":
            nodes[event["name"]].append((event["dur"] / 1e3, event["args"]["bytes"]))
    rows = json.loads(own.read_text(encoding="utf-8"))["rows"]
    assert len(rows) == 4
    for one in rows:
        types = one["cache"].lower().replace("v", " v")
        name = f"FLASH_ATTN_EXT_MIXED {types}" if types != "f16" else "FLASH_ATTN_EXT f16"
        ms, touched = min(nodes[name])
        assert ms == pytest.approx(one["min_ms"], rel=0.15), one["id"]
        assert touched / ms == pytest.approx(one["bytes"] / one["min_ms"], rel=0.15), one["id"]
