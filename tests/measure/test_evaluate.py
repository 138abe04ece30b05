"""`qlutattn eval`: what is made of llama-perplexity's answers, and one real run with a tiny model."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import fake_tools
import pytest
from helpers import ROOT
from tiny_models import CORPUS, write_model

from qlutattn_patch.building import cmake, results
from qlutattn_patch.commands import main
from qlutattn_patch.measure import evaluate as evaluate_module
from qlutattn_patch.measure import perplexity, plots
from qlutattn_patch.measure.evaluate import Settings, result_of
from qlutattn_patch.measure.perplexity import Context
from qlutattn_patch.workspace import Workspace

SAID = ROOT / "tests" / "data" / "perplexity"
CONTRACT = {"type_k", "type_v", "bpw", "cache_bytes", "ppl", "ppl_err", "dppl", "kld_mean", "kld_median", "kld_p999"}
CONTRACT |= {"same_top"}
# Prints what was recorded, by what is asked for; writes logits; notes what it was asked. Packed caches it refuses.
# Where it waits, it has the one who judges interrupted.
TOOL = """\
import os, pathlib, signal, sys, time
said = pathlib.Path(SAID)
argv = sys.argv[1:]
with open(ASKED, "a", encoding="utf-8") as asked:
    asked.write("\\t".join(argv) + "\\n")
def tell(name, status=0):
    sys.stdout.buffer.write((said / (name + ".txt")).read_bytes())
    sys.exit(status)
if WAITS and "--kl-divergence" in argv:
    (pathlib.Path(ASKED).with_name("pid")).write_text(str(os.getpid()))
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)
if "--no-warmup" in argv:
    tell("refused", 1) if any("qlutattn" in word for word in argv) else tell("probe")
if "--kl-divergence" in argv:
    tell("compare")
pathlib.Path(argv[argv.index("--kl-divergence-base") + 1]).write_bytes(bytes(WRITES))
tell("base")
"""


class Fake:
    """A project whose build has a llama-perplexity that plays back what the real one said."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.workspace = Workspace(folder, folder / "vendor" / "llama.cpp")
        self.tree = cmake.BuildTree(self.workspace.build_dir("native"))
        self.tree.bin.mkdir(parents=True)
        (folder / "templates").mkdir()
        shutil.copy(ROOT / "templates" / "formats.toml", folder / "templates")
        self.model, self.text = folder / "tiny.gguf", folder / "text.txt"
        for path in (self.model, self.text):
            path.write_text("something", encoding="utf-8")
        monkeypatch.setattr(cmake, "build", lambda *_: self.tree)
        monkeypatch.setattr(evaluate_module.Workspace, "find", lambda *_: self.workspace)
        self.make()

    def make(self, writes: int = 530404, waits: bool = False) -> None:
        names = {"SAID": str(SAID), "ASKED": str(self.workspace.root / "asked"), "WRITES": writes, "WAITS": waits}
        head = "".join(f"{name} = {value!r}\n" for name, value in names.items())
        fake_tools.write_program(self.tree.bin / perplexity.TARGET, head + TOOL)

    def asked(self) -> list[list[str]]:
        path = self.workspace.root / "asked"
        return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def run(self, *words: str) -> int:
        return main.run(["eval", "--model", str(self.model), "--text", str(self.text), "--ctx", "256", *words])

    @property
    def leftovers(self) -> list[Path]:
        return list(self.tree.path.glob("eval-*"))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(tmp_path / "Größe 1", monkeypatch)


def test_eval_gives_the_contract_and_nothing_else(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert fake.run("--types", "f16,q4_0", "--json") == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["schema"], found["n_ctx"], found["model"]) == (1, 256, str(fake.model))
    assert (found["chunks"], found["tokens"]) == (4, 4 * 127)
    assert all(set(row) >= CONTRACT for row in found["rows"])
    assert [(row["cache"], row["bpw"], row["kld_mean"]) for row in found["rows"]] == [
        ("f16", 16, 0.062577),
        ("q4_0", 4.5, 0.062577),
    ]
    assert "the logits of 4 chunks take 0.5 MB" in said.err
    assert "q4_0: mean KLD 0.062577, 99.9 % 0.2447, same top 71.06 %, ΔPPL -20.9199 ± 68.0852" in said.err
    assert fake.leftovers == []


def test_the_last_run_is_kept_with_its_model(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert fake.run("--types", "q4_0", "--chunks", "4", "--json") == 0
    found = results.read(fake.tree.path, results.EVAL)
    assert found is not None
    rest = {name: value for name, value in found.result.items() if name != "arguments"}
    assert {**rest, "command": "eval", "ok": True} == json.loads(capsys.readouterr().out)
    assert found.why_stale(fake.tree.path) == []
    words = ["--model", str(fake.model), "--text", str(fake.text), "--ctx", "256", "--types", "q4_0", "--chunks", "4"]
    assert found.arguments == words
    fake.model.write_text("something else", encoding="utf-8")
    assert found.why_stale(fake.tree.path) == [f"{fake.model} has changed"]


def test_every_cache_is_asked_for_before_anything_is_computed(fake: Fake) -> None:
    assert fake.run("--types", "q8_0,q4_0", "--chunks", "4", "--threads", "3") == 0
    kinds = [
        "probe" if "--no-warmup" in argv else "compare" if "--kl-divergence" in argv else "base"
        for argv in fake.asked()
    ]
    assert kinds == ["probe"] * 3 + ["base"] + ["compare"] * 2
    assert all(argv[argv.index("-t") + 1] == "3" for argv in fake.asked())
    assert fake.asked()[3][-2:] == ["--chunks", "4"]
    assert [argv[argv.index("-ctk") + 1] for argv in fake.asked()[-2:]] == ["q8_0", "q4_0"]


def test_eval_prints_a_table(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert fake.run("--types", "q4_0") == 0
    out = capsys.readouterr().out
    numbers = r"0\.14 +16\.00 +4158\.0157 ± 374\.4139 +-20\.9199 ± 68\.0852 +0\.062577 ± 0\.001310"
    assert re.search(rf"^q4_0 +- +- +4\.5 +{numbers} +0\.056721 +0\.2447 +71\.06 %$", out, re.MULTILINE)
    assert "508 tokens scored, the second halves of 4 chunks of 256" in out


def test_all_refused_caches_are_named_before_the_base_is_made(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert fake.run("--types", "q4_0,K4V4,V2,q8_0", "--kv-window", "128") == 3
    err = capsys.readouterr().err
    assert "error: llama-perplexity refuses K4V4, V2: packed caches need heads of 64, 128 or 256 channels" in err
    assert "  next: qlutattn eval with --types q4_0,q8_0" in err
    assert len(fake.asked()) == 5
    assert "--kv-window" in fake.asked()[2]
    assert "--kv-window" not in fake.asked()[1]
    assert fake.leftovers == []


def test_a_disk_without_room_is_told_before_the_logits_are_written(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 5 * 10**5, 3 * 10**5))
    assert fake.run("--types", "q4_0") == 3
    err = capsys.readouterr().err
    assert "The logits of 4 chunks take 0.5 MB, and " in err
    assert "has room for 0.3 MB.\n  next: qlutattn eval with --chunks 2" in err
    assert fake.leftovers == []


def test_logits_that_were_cut_off_are_not_used(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.make(writes=530403)
    assert fake.run("--types", "q4_0") == 3
    assert "The file of logits has 530403 bytes instead of 530404." in capsys.readouterr().err
    assert not any("--kl-divergence" in argv for argv in fake.asked())


def test_an_interrupt_ends_the_tool_and_takes_the_logits_away(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.make(waits=True)
    assert fake.run("--types", "q4_0", "--json") == 130
    said = capsys.readouterr()
    assert (said.out, said.err.splitlines()[-2]) == ("", "error: Interrupted.")
    assert "Traceback" not in said.err
    assert fake.leftovers == []
    with pytest.raises(ProcessLookupError):
        os.kill(int((fake.workspace.root / "pid").read_text(encoding="utf-8")), 0)


def test_what_is_no_cache_is_told_before_anything_is_built(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert fake.run("--types", "q4_0,q3_0") == 2
    err = capsys.readouterr().err
    assert err.startswith("error: --types: 'q3_0' is not a cache; names are such as f32, f16,")
    assert len(err.splitlines()) == 2
    assert fake.asked() == []


@pytest.mark.parametrize("words", [("--ctx", "7"), ("--ctx", "many"), ("--chunks", "0"), ("--kv-window", "-1")])
def test_a_number_that_cannot_be_is_a_matter_of_usage(words: tuple[str, str], fake: Fake) -> None:
    assert fake.run(*words) == 2
    assert fake.asked() == []


def test_a_context_longer_than_the_models_is_mentioned(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = evaluate_module.Cache("q4_0", "q4_0", "q4_0", 4.5)
    tool = perplexity.Tool(fake.tree.bin / perplexity.TARGET, fake.model, 70000, None)
    evaluate_module._contexts(tool, [asked], fake.workspace.root / "empty")
    assert "the model was trained for 65536 tokens, and --ctx is 70000" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--model", "--text"])
def test_files_must_be_there_and_hold_something(option: str, fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    empty = fake.workspace.root / "empty file"
    assert fake.run(option, str(empty)) == 2
    assert f"There is no file {empty} for {option}." in capsys.readouterr().err
    empty.touch()
    assert fake.run(option, str(empty)) == 2
    assert f"The file {empty} for {option} is empty." in capsys.readouterr().err
    assert fake.asked() == []


def test_an_emulator_is_refused(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    if not cmake.preset_named("arm64").is_cross:
        pytest.skip("this machine is an arm64")
    assert fake.run("--preset", "arm64") == 3
    assert "emulator" in capsys.readouterr().err


# what is made of the answers

FIGURES = {"ppl": 17.0, "ppl_err": 0.2, "dppl": 0.01, "dppl_err": 0.001, "kld_mean": 0.004, "kld_mean_err": 0.0001}
FIGURES |= {"kld_median": 0.001, "kld_p999": 0.1, "same_top": 96.2, "same_top_err": 0.1}
F16 = Context(n_vocab=4096, n_ctx_train=4096, cache_bytes=4 << 20, window=None, sink=None)
K4V2 = evaluate_module.Cache("K4V2", "qlutattn_k4_128x128", "qlutattn_v2_128x128", 3.25)
SETTINGS = Settings(Path("m.gguf"), Path("t.txt"))


def made(cache_bytes: int | None = 2 << 20, **figures: float) -> evaluate_module.Result:
    context = Context(4096, 4096, cache_bytes, window=256, sink=128)
    return result_of(SETTINGS, 3, F16, [(K4V2, context, {**FIGURES, **figures})])


def test_window_sink_and_bits_of_the_cache_are_as_the_tool_has_them() -> None:
    (row,) = made().rows
    assert row.ubatch == 128
    assert (row.window, row.sink, row.cache_bytes, row.bits_in_cache) == (256, 128, 2 << 20, 8)
    assert made().table()[0][:6] == ["K4V2", "256", "128", "3.25", "2.00", "8.00"]


def test_a_cache_that_tells_no_size_has_none() -> None:
    result = made(cache_bytes=None)
    assert (result.rows[0].cache_bytes, result.rows[0].bits_in_cache) == (None, None)
    assert result.table()[0][4:6] == ["-", "-"]


@pytest.mark.parametrize("figures", [{}, {"kld_mean": 0.0}])
def test_the_picture_names_each_cache_and_is_the_same_each_time(figures: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "ä b.svg"
    plots.plot_evaluation(made(**figures), path)
    first = path.read_bytes()
    assert ET.fromstring(first).tag.endswith("svg")
    assert b"<!-- K4V2 -->" in first
    plots.plot_evaluation(made(**figures), path)
    assert path.read_bytes() == first


def test_f16_itself_leaves_the_picture_logarithmic(tmp_path: Path) -> None:
    context = Context(4096, 4096, 2 << 20, window=None, sink=None)
    f16 = evaluate_module.Cache("f16", "f16", "f16", 16)
    judged = [(f16, context, {**FIGURES, "kld_mean": -1e-6}), (K4V2, context, FIGURES)]
    plots.plot_evaluation(result_of(SETTINGS, 3, F16, judged), tmp_path / "p.svg")
    drawn = (tmp_path / "p.svg").read_text(encoding="utf-8")
    assert "<!-- K4V2 -->" in drawn
    assert "<!-- f16 -->" not in drawn
    assert r"10^{-3}" in drawn


def test_a_picture_that_cannot_be_is_refused_first(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert fake.run("--plot", "eval.pdf") == 2
    assert "must end in .svg or .png" in capsys.readouterr().err
    assert fake.asked() == []


# the real one


@pytest.mark.compiler
def test_a_tiny_model_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["apply"]) == 0
    model = write_model(tmp_path / "tiny modèle.gguf")
    text, picture = tmp_path / "text.txt", tmp_path / "eval.png"
    chosen = random.Random(1)
    text.write_text(" ".join(chosen.choice(CORPUS.split()) for _ in range(800)), encoding="utf-8")
    argv = ["eval", "--model", str(model), "--text", str(text), "--ctx", "512", "--threads", "1"]
    types = "f16,q8_0,q4_0,K4V4+w0+s0,K1V1+w0+s0,K4V4+w128,V4+w0+s0"
    assert main.run([*argv, "--types", types, "--plot", str(picture), "--json"]) == 0
    said = capsys.readouterr()
    f16, q8_0, q4_0, k4v4, k1v1, window, v4 = json.loads(said.out)["rows"]
    assert abs(f16["kld_mean"]) < 1e-5
    assert f16["same_top"] == 100
    assert f16["kld_mean"] < q8_0["kld_mean"] < q4_0["kld_mean"] / 10
    assert q4_0["same_top"] < q8_0["same_top"]
    assert abs(q4_0["dppl"] - (q4_0["ppl"] - f16["ppl"])) < 0.01 * f16["ppl"]
    assert f16["cache_bytes"] == 2 * 2 * 512 * 256 * 2  # K and V, layers, tokens, channels, bytes
    assert 4.3 < q4_0["bits_in_cache"] < 4.7
    assert v4["kld_mean"] < k4v4["kld_mean"] < q4_0["kld_mean"] < k1v1["kld_mean"]
    assert window["kld_mean"] < k4v4["kld_mean"]
    assert (window["window"], window["sink"]) == (128, 128)
    assert (k4v4["window"], k4v4["sink"], k4v4["bpw"]) == (0, 0, 4.25)
    assert k1v1["cache_bytes"] < k4v4["cache_bytes"] < window["cache_bytes"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not list(Workspace.find(ROOT).build_dir("native").glob("eval-*"))


@pytest.mark.compiler
def test_what_cannot_be_read_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["apply"]) == 0
    text = tmp_path / "text.txt"
    text.write_text("too short", encoding="utf-8")
    assert main.run(["eval", "--model", str(text), "--text", str(text)]) == 3
    assert f"cannot use {text} with --ctx 1024: invalid magic characters" in capsys.readouterr().err
    model = write_model(tmp_path / "tiny.gguf")
    assert main.run(["eval", "--model", str(model), "--text", str(text), "--types", "q8_0"]) == 3
    assert re.search(r"text\.txt has only \d tokens: a context of 1024 needs 2048\.", capsys.readouterr().err)
