"""`qlutattn bench --work sampling`: what is made of the times that bench_sampling takes, and one quick real run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import documents
import fake_tools
import pytest

from qlutattn_patch.building import cmake, results
from qlutattn_patch.commands import main
from qlutattn_patch.measure import sampling
from qlutattn_patch.measure.documents import OwnSampling, SamplingSide, TimedSampling
from qlutattn_patch.measure.sampling import Settings, bench_sampling, result_of
from qlutattn_patch.system.records import plain
from qlutattn_patch.workspace import Workspace


def row(chain: str, logits: str, stock: float, select: float) -> TimedSampling:
    return TimedSampling(
        id=f"{chain}-151936-{logits}",
        chain=chain,
        vocab=151936,
        logits=logits,
        kept=40,
        tokens=80,
        different=0,
        stock=SamplingSide(stock, stock, 0.1),
        select=SamplingSide(select, select, 0.1),
    )


SOME = OwnSampling(
    kernel="avx2", isa=["AVX2"], rows=[row("default", "gauss", 150, 12.5), row("min-p", "peaked", 240, 16)]
)


def test_a_row_has_its_ratio() -> None:
    result = result_of(SOME, "native", "A CPU")
    assert [line.speedup for line in result.rows] == [12, 15]
    first, empty, second = result.table()
    assert first == ["gauss", "151936", "default", "40", "12.5", "150.0", "12.0", "0 of 80"]
    assert (set(empty), second[2]) == ({""}, "min-p")
    assert result.summary() == ["A CPU; AVX2; kernel avx2"]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A built bench_sampling that leaves prepared results."""
    workspace = Workspace(tmp_path, tmp_path / "vendor" / "llama.cpp")
    tree = cmake.BuildTree(workspace.build_dir("native"))
    tree.bin.mkdir(parents=True)
    monkeypatch.setattr(cmake, "build", lambda *_: tree)
    monkeypatch.setattr(Workspace, "find", lambda *_: workspace)
    (tmp_path / "own.json").write_text(json.dumps(plain(SOME)), encoding="utf-8")
    fake_tools.write_program(
        tree.bin / sampling.TARGET,
        "import json, sys\nargv = sys.argv[1:]\n"
        f"json.dump(argv, open({str(tmp_path / 'argv.json')!r}, 'w'))\n"
        f"open(argv[argv.index('--json') + 1], 'w').write(open({str(tmp_path / 'own.json')!r}).read())\n",
    )
    return workspace


def test_bench_passes_its_options_on(fake: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["bench", "--work", "sampling", "--vocab", "32000", "--filter", "top", "--quick", "--json"]) == 0
    argv = json.loads((fake.root / "argv.json").read_text(encoding="utf-8"))
    assert argv[:5] == ["--vocab", "32000", "--filter", "top", "--quick"]
    found = json.loads(capsys.readouterr().out)
    documents.check(found)
    assert [one["speedup"] for one in found["rows"]] == [12, 15]
    kept = results.read(fake.build_dir("native"), results.SAMPLING)
    assert kept is not None
    assert kept.part
    words = ["--work", "sampling", "--vocab", "32000", "--filter", "top", "--quick"]
    assert kept.arguments == words
    rest = {name: value for name, value in kept.result.items() if name != "arguments"}
    assert {**rest, "command": "bench", "ok": True} == found


def test_a_plot_is_drawn(fake: Workspace) -> None:
    pytest.importorskip("matplotlib")
    assert main.run(["bench", "--work", "sampling", "--plot", str(fake.root / "times.svg")]) == 0
    assert "min-p" in (fake.root / "times.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--work", "sampling", "--keys", "512"], "Sampling takes no --keys"),
        (["--work", "sampling", "--instructions"], "Sampling takes no --instructions"),
        (["--work", "decode", "--vocab", "512"], "Only sampling takes --vocab"),
    ],
)
def test_options_of_other_work_are_refused(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["bench", *argv]) == 2
    assert said in capsys.readouterr().err


def test_an_emulator_is_no_place_to_measure(fake: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["bench", "--work", "sampling", "--preset", "arm64"]
    assert main.run(argv) in (0, 3)  # 0 where this machine is arm64
    assert "emulator" in capsys.readouterr().err or (fake.root / "argv.json").exists()


@pytest.mark.compiler
def test_a_quick_run() -> None:
    result = bench_sampling(Workspace.find(), "native", Settings(quick=True, filter="default-.*-gauss"))
    assert [one.id for one in result.rows] == ["default-151936-gauss"]
    assert result.rows[0].different == 0
    assert result.rows[0].speedup > 1


@pytest.mark.compiler
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--vocab", "0"], "--vocab needs numbers of tokens from 1 to 1048576, not '0'"),
        (["--chains", "top-q"], "--chains needs some of greedy, top-k, default, top-p, min-p, not 'top-q'"),
        (["--filter", "none"], "no row matches 'none'"),
        (["--record", "model", "text"], "--record needs --rows"),
        (["--rows", "no-such-file", "--quick"], "there are no logits in no-such-file"),
        (["--record", "no-model", "no-text", "--rows", "x"], "cannot read the text no-text"),
    ],
)
def test_what_bench_sampling_cannot_take(argv: list[str], said: str, tmp_path: Path) -> None:
    program = cmake.build(Workspace.find(), "native", (sampling.TARGET,)).bin / sampling.TARGET
    done = subprocess.run([program, *argv], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode in (2, 3)
    assert f"bench_sampling: {said}" in done.stderr
