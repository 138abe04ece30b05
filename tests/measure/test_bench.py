"""`qlutattn bench`: what is made of the times that bench_attn takes, and one quick real run."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import fake_tools
import pytest
from helpers import ROOT

from qlutattn_patch.building import cmake, results
from qlutattn_patch.commands import main
from qlutattn_patch.measure import bench as bench_module
from qlutattn_patch.measure import plot_style, plots
from qlutattn_patch.measure.bench import Settings, bench, count, exactly, result_of
from qlutattn_patch.measure.documents import OwnResults
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.system import process
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.records import plain, typed
from qlutattn_patch.workspace import Workspace

CONTRACT = {"work", "n_q", "n_kv", "threads", "type_k", "type_v", "window", "kernel", "median_ms", "min_ms"}
CONTRACT |= {"vs_f16", "vs_floor", "vs_peak"}


def row(cache: str, median: float, *, work: str = "decode", n_kv: int = 512, threads: int = 1) -> dict[str, Any]:
    upstream = cache in ("f16", "q8_0")
    return {
        "id": f"{work}-{n_kv}-t{threads}-{cache}",
        "work": work,
        "n_q": 1,
        "n_kv": n_kv,
        "threads": threads,
        "cache": cache,
        "type_k": cache if upstream else "qlutattn_k4_128x128",
        "type_v": cache if upstream else "qlutattn_v4_128x128",
        "window": 512 if "+w" in cache else 0,
        "kernel": "upstream" if upstream else "dot-avx2",
        "bytes": 1000,
        "rounds": 5,
        "median_ms": median,
        "min_ms": median * 0.9,
        "spread": 0.05,
        "floor_ms": median / 4,
        "peak_ms": None if cache == "q8_0" else median / 2,
    }


def own_results(*rows: dict[str, Any]) -> OwnResults:
    rates = [{"threads": n, "read_gbps": 10.0 * n, "memcpy_gbps": 5.0 * n} for n in (1, 2)]
    raw = {
        "schema": 1,
        "caches": "warm",
        "layout": "heads",
        "isa": ["AVX2", "FMA"],
        "bandwidth": rates,
        "peak": [{"threads": n, "int8_gmacs": 100.0 * n, "f32_gmacs": 20.0 * n} for n in (1, 2)],
        "rows": list(rows),
    }
    return typed(raw, OwnResults)


SOME = own_results(
    row("f16", 8.0),
    row("q8_0", 16.0),
    row("K4V4", 0.5),
    row("f16", 30.0, n_kv=2048),
    row("K4V4", 2.0, n_kv=2048),
    row("K4V4", 7.0, n_kv=2048, threads=2),
    row("K4V4+w512", 1.0, work="prefill"),
)


def test_the_arguments_are_those_that_were_given() -> None:
    assert Settings().arguments == []
    settings = Settings(work="decode", keys="512,2048", filter="K4", cold=True)
    assert settings.arguments == ["--work", "decode", "--keys", "512,2048", "--filter", "K4", "--cold"]


def test_ratios_are_to_the_f16_of_the_same_group_and_to_the_own_floor() -> None:
    rows = result_of(SOME, "native", "A CPU").rows
    assert [one.vs_f16 for one in rows] == [1, 0.5, 16, 1, 15, None, None]
    assert {one.vs_floor for one in rows} == {0.25}
    assert [one.vs_peak for one in rows[:3]] == [0.5, None, 0.5]


def test_the_json_has_the_names_of_the_contract() -> None:
    found = plain(result_of(SOME, "native", "A CPU"))
    assert (found["schema"], found["cpu"], found["isa"]) == (1, "A CPU", ["AVX2", "FMA"])
    assert (found["read_gbps"], found["memcpy_gbps"]) == (20, 10)  # of all threads
    assert all(set(one) >= CONTRACT for one in found["rows"])


def test_the_table_has_a_line_for_each_row_and_empty_ones_between_groups() -> None:
    result = result_of(SOME, "native", "A CPU")
    lines = result.table()
    assert [line[3] for line in lines] == ["f16", "q8_0", "K4V4", "", "f16", "K4V4", "", "K4V4", "", "K4V4+w512"]
    wanted = ["decode", "512", "1", "K4V4", "dot-avx2", "0.500", "0.450", "5.0%", "16.0", "25%", "50%"]
    assert lines[2] == wanted
    assert lines[-1][-3] == "-"
    assert all(len(line) == len(result.columns) for line in lines)
    assert "read 10.0 GB/s" in result.summary()[1]


def test_instructions_are_one_more_column() -> None:
    counted = own_results({**row("f16", 8.0), "instructions": 1234567})
    result = result_of(counted, "native", "A CPU")
    assert result.columns[-1] == "instructions"
    assert result.table()[0][-1] == "1,234,567"


def test_the_filter_of_one_row_is_quoted() -> None:
    assert exactly("decode-512-t1-K4V4+w512") == r"^decode-512-t1-K4V4\+w512$"


# bench_attn's part is played by programs that leave prepared results


class Fake:
    """A built bench_attn that does what a test says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.workspace = Workspace(folder, folder / "vendor" / "llama.cpp")
        self.tree = cmake.BuildTree(self.workspace.build_dir("native"))
        self.tree.bin.mkdir(parents=True)
        monkeypatch.setattr(cmake, "build", lambda *_: self.tree)
        monkeypatch.setattr(bench_module.Workspace, "find", lambda *_: self.workspace)

    @property
    def program(self) -> Path:
        return self.tree.bin / "bench_attn"

    def make(self, code: str) -> None:
        fake_tools.write_program(self.program, f"import json, sys\nargv = sys.argv[1:]\n{code}\n")

    def leaves(self, results: OwnResults) -> None:
        (self.workspace.root / "own.json").write_text(json.dumps(plain(results)), encoding="utf-8")
        self.make(
            f"open(argv[argv.index('--json') + 1], 'w').write(open({str(self.workspace.root / 'own.json')!r}).read())\n"
            f"json.dump(argv, open({str(self.workspace.root / 'argv.json')!r}, 'w'))\n"
            "print('[1/1] decode-512-t1', file=sys.stderr)"
        )

    def argv(self) -> list[str]:
        found: list[str] = json.loads((self.workspace.root / "argv.json").read_text(encoding="utf-8"))
        return found


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake(tmp_path / "Größe 1", monkeypatch)
    made.leaves(SOME)
    return made


def test_bench_passes_its_options_on(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["bench", "--work", "decode", "--heads", "8/2/64", "--quick", "--json"]) == 0
    assert fake.argv()[:5] == ["--work", "decode", "--heads", "8/2/64", "--quick"]
    found = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in found["rows"]] == [one.id for one in SOME.rows]


def test_the_last_run_is_kept_with_its_ratios(fake: Fake) -> None:
    result = bench(fake.workspace, "native", Settings(work="decode"))
    found = results.read(fake.tree.path, results.BENCH)
    assert found is not None
    assert found.result == {"arguments": ["--work", "decode"], **plain(result)}
    assert [one["vs_f16"] for one in found.result["rows"]] == [1, 0.5, 16, 1, 15, None, None]
    bench(fake.workspace, "native", Settings(quick=True))
    assert results.load_fresh(fake.workspace, "native", results.BENCH) == found


def test_bench_prints_a_table(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["bench"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^decode +512 +1 +K4V4 +dot-avx2 +0\.500 +0\.450 +5\.0% +16\.0 +25% +50%$", out, re.MULTILINE)
    assert "AVX2 FMA; warm caches, stock types by heads" in out


def test_what_bench_attn_refuses_is_told(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.make("print('bench_attn: --keys needs multiples of 128, not 513', file=sys.stderr); sys.exit(2)")
    assert main.run(["bench", "--keys", "513"]) == 2
    assert "bench_attn: --keys needs multiples of 128, not 513.\n  next: qlutattn bench" in capsys.readouterr().err


def test_too_little_memory_is_told(fake: Fake) -> None:
    fake.make("print('bench_attn: there is not enough memory for 131072 keys as f16'); sys.exit(3)")
    with pytest.raises(ExpectedError, match="not enough memory for 131072 keys as f16") as failure:
        bench(fake.workspace, "native", Settings())
    assert "--keys" in str(failure.value.hint)


@pytest.mark.parametrize("code", ["sys.exit(1)", "pass", "import os; os.abort()"])
def test_no_results_are_a_failure(code: str, fake: Fake) -> None:
    fake.make(code)
    with pytest.raises(ExpectedError, match="left no results"):
        bench(fake.workspace, "native", Settings())


@pytest.mark.parametrize("left", ["{", "[]", '{"schema": 2, "rows": []}', '{"schema": 1, "rows": [{"median_ms": 0}]}'])
def test_results_that_make_no_sense_are_a_failure(left: str, fake: Fake) -> None:
    fake.make(f"open(argv[-1], 'w').write({left!r})")
    with pytest.raises(ExpectedError, match="left no results"):
        bench(fake.workspace, "native", Settings())


def test_an_emulator_is_not_timed() -> None:
    if not cmake.preset_named("arm64").is_cross:
        pytest.skip("this machine is an arm64")
    with pytest.raises(ExpectedError, match="emulator"):
        bench(Workspace.find(ROOT), "arm64", Settings())


def test_a_busy_machine_is_mentioned(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    bench(fake.workspace, "native", Settings())
    assert "busy" not in capsys.readouterr().err
    monkeypatch.setattr("os.getloadavg", lambda: (500.0, 0.0, 0.0))
    bench(fake.workspace, "native", Settings())
    assert "this machine is busy (load 500.0" in capsys.readouterr().err


def test_without_valgrind_nothing_is_counted(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find", lambda _: None)
    with pytest.raises(ExpectedError, match="'valgrind' is not on PATH"):
        bench(fake.workspace, "native", Settings(), instructions=True)


FAKE_VALGRIND = """#!/bin/sh
for word; do case "$word" in --callgrind-out-file=*) printf 'events: Ir\\n%s\\n' "TOTALS" > "${word#*=}";; esac; done
"""


def test_instructions_are_counted_row_by_row(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    valgrind = tmp_path / "bin" / "valgrind"
    valgrind.parent.mkdir()
    valgrind.write_text(FAKE_VALGRIND.replace("TOTALS", "totals: 4711"), encoding="utf-8")
    valgrind.chmod(0o755)
    monkeypatch.setenv("PATH", str(valgrind.parent), prepend=":")
    rows = bench(fake.workspace, "native", Settings(), instructions=True).rows
    assert {one.instructions for one in rows} == {4711}
    assert fake.argv()[:4] == ["--keys", "512", "--threads", "1"]
    valgrind.write_text(FAKE_VALGRIND.replace("TOTALS", "totals: 0"), encoding="utf-8")
    with pytest.raises(ExpectedError, match="could not count the instructions of decode-512-t1-f16"):
        count(valgrind, fake.program, Settings(), "decode-512-t1-f16", tmp_path / "out")


# the picture


def test_an_svg_shows_each_cache_and_is_the_same_each_time(tmp_path: Path) -> None:
    path = tmp_path / "ä b.svg"
    plots.plot_bench(result_of(SOME, "native", "A CPU"), path)
    first = path.read_bytes()
    assert ET.fromstring(first).tag.endswith("svg")
    assert all(f"<!-- {cache} -->".encode() in first for cache in ("f16", "q8_0", "K4V4", "K4V4+w512"))
    assert b"decode, 2 threads: time" in first
    plots.plot_bench(result_of(SOME, "native", "A CPU"), path)
    assert path.read_bytes() == first


def test_a_png_is_a_png(fake: Fake, tmp_path: Path) -> None:
    path = tmp_path / "bench.PNG"
    assert main.run(["bench", "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")


def test_pictures_that_cannot_be_are_refused_before_anything_is_timed(
    fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.make("raise SystemExit('was run')")
    assert main.run(["bench", "--plot", "bench.pdf"]) == 2
    assert "'bench.pdf' is not a file name for a plot: it must end in .svg or .png." in capsys.readouterr().err
    assert main.run(["bench", "--plot", str(tmp_path / "no" / "bench.svg")]) == 2
    assert "--plot: there is no folder" in capsys.readouterr().err


def test_without_matplotlib_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ExpectedError, match="needs the Python package matplotlib"):
        plot_style.check(Path("bench.svg"))


# the real one


@pytest.fixture(scope="module")
def patched_tree() -> None:
    """The project's own vendored tree, with the patches in it."""
    assert main.run(["apply"]) == 0


@pytest.mark.compiler
@pytest.mark.usefixtures("patched_tree")
@pytest.mark.parametrize("layout", ["heads", "tokens"])
def test_a_quick_real_run(layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "bench.svg"
    types = "f16,q8_0,q4_0,K4V4,K2V1,K4V4+w128,w256"
    argv = ["bench", "--quick", "--keys", "512", "--threads", "1,2", "--heads", "4/2/64", "--types", types]
    argv += ["--layout", layout]
    assert main.run([*argv, "--plot", str(picture), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["read_gbps"] > 0.1
    assert found["isa"]
    assert found["build"]["series"] == load_series(Workspace.find().patches).digest
    assert found["layout"] == layout
    rows = {one["id"]: one for one in found["rows"]}
    groups = [f"{work}-512-t{n}" for work in ("decode", "prefill") for n in (1, 2)]
    wanted = {f"{group}-{cache}" for group in groups for cache in types.split(",")}
    packs = ("f16", "q8_0", "q4_0", "K4", "K2", "V4", "V1")
    assert set(rows) == wanted | {f"pack-512-t{n}-{cache}" for n in (1, 2) for cache in packs}
    assert all(one["vs_f16"] > 0 and one["vs_floor"] > 0 for one in rows.values())
    assert rows["decode-512-t1-f16"]["kernel"] == "upstream"
    assert rows["decode-512-t1-w256"]["kernel"] == "f16"
    assert rows["decode-512-t1-K4V4"]["kernel"].startswith(("lut", "dot"))
    # keys and values of 512 tokens: 2 heads of 64 channels, f16; 4.25 bits; 384 tokens of 4.25 bits and 128 of f16
    assert rows["decode-512-t1-f16"]["bytes"] == 2 * 512 * 128 * 2
    assert rows["decode-512-t1-K4V4"]["bytes"] == 2 * 4 * 8704
    assert rows["prefill-512-t2-K4V4+w128"]["bytes"] == 2 * (3 * 8704 + 128 * 128 * 2)
    assert (rows["prefill-512-t1-f16"]["n_q"], rows["decode-512-t1-f16"]["n_q"]) == (512, 1)
    assert picture.stat().st_size > 10000


@pytest.mark.compiler
@pytest.mark.usefixtures("patched_tree")
@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--work", "decoding", "--work needs decode, prefill or pack, not 'decoding'"),
        ("--keys", "513", "--keys needs multiples of 128, not '513'"),
        ("--keys", "262144", "numbers from 512 to 131072, not '262144'"),
        ("--threads", "0", "--threads needs numbers from 1 to 512, not '0'"),
        ("--heads", "32/8", "32/8/192/128, not '32/8'"),
        ("--heads", "32/7/128", "the query heads are no multiple"),
        ("--heads", "4/1/96", "multiples of 64"),
        ("--types", "K3V4", "'K3V4' is not a cache"),
        ("--types", "K4V4+w100", "'K4V4+w100' is not a cache"),
        ("--filter", "nothing", "no row matches 'nothing'"),
        ("--filter", "[", "a regular expression, not '['"),
    ],
)
def test_bench_attn_says_what_it_cannot_take(
    option: str, value: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["bench", option, value]) == 2
    assert says in capsys.readouterr().err
