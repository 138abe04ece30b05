"""Sampling from the row of logits beside llama.cpp's own code; the kernels that select, of every instruction set."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import effort
import kv_helpers
import pytest
import server_process
import tiny_models

NATIVE = Path(__file__).parent
X86 = platform.machine() in ("x86_64", "AMD64")
QEMU = shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")
KINDS = 19
N_DRAWS, ALL_DRAWS = 6_000, 1_000_000


def compile_kernels(tree: Path, program: Path, compiler: str, *flags: str) -> Path:
    """The program that compares the kernels with plain loops."""
    ggml = tree / "ggml"
    sources = [NATIVE / "select.cpp", ggml / "src" / "ggml-select.cpp"]
    include = [f"-I{ggml / folder}" for folder in ("include", "src")]
    subprocess.run([compiler, "-std=c++17", "-O2", "-w", *flags, *include, *sources, "-o", program], check=True)
    return program


def lines(*argv: str | Path, **env: str) -> list[dict[str, Any]]:
    """The JSON objects that a program prints."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=os.environ | env)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def names(found: list[dict[str, Any]]) -> list[str]:
    return [line["kernel"] for line in found]


@pytest.mark.compiler
@pytest.mark.parametrize("flags", [(), ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")])
def test_kernels_give_what_plain_loops_give(tree: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    found = lines(compile_kernels(tree, tmp_path / "select", "c++", *flags))
    assert names(found)[-1] == "scalar"
    assert all(line["rows"] == 14 * KINDS for line in found)
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8") if X86 and Path("/proc/cpuinfo").exists() else ""
    assert ("avx2" in names(found)) == (" avx2 " in cpu)
    assert ("avx512" in names(found)) == (" avx512vl " in cpu)


@pytest.mark.qemu
@pytest.mark.skipif(not QEMU, reason="no g++-aarch64-linux-gnu and qemu-user")
def test_kernels_of_neon_under_qemu(tree: Path, tmp_path: Path) -> None:
    program = compile_kernels(tree, tmp_path / "select", "aarch64-linux-gnu-g++", "-static")
    assert names(lines("qemu-aarch64", "-cpu", "max", program)) == ["neon", "scalar"]


@pytest.mark.compiler
@pytest.mark.slow
def test_exp_is_that_of_libm_for_every_float(tree: Path, tmp_path: Path) -> None:
    found = lines(compile_kernels(tree, tmp_path / "select", "c++"), "exp")
    assert [line["different"] for line in found] == [0] * len(found)


@pytest.fixture(scope="module")
def program(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that draws with chains."""
    return kv_helpers.compile_driver("sampling.cpp", tree, tmp_path_factory.mktemp("sampling"))


def check_draws(found: dict[str, Any], n_draws: int) -> None:
    """All kinds of rows and of chains, and no token or candidate that is not upstream's."""
    assert found["kinds"] == KINDS
    assert found["in_row"] > n_draws / 20
    assert found["drawn"] > n_draws / 30
    assert (found["draws"] >= n_draws, found["other_tokens"], found["other_candidates"]) == (True, 0, 0)


@pytest.mark.compiler
@pytest.mark.core
@pytest.mark.nightly
@pytest.mark.parametrize("kernel", ["avx512", "avx2", "neon", "scalar"])
def test_the_same_tokens_as_upstream(program: Path, kernel: str) -> None:
    n_draws = effort.most(N_DRAWS, ALL_DRAWS)
    (found,) = lines(program, "draws", str(n_draws), str(len(kernel)), GGML_SELECT_KERNEL=kernel)
    if found["kernel"] != kernel:
        pytest.skip(f"no {kernel} here")
    check_draws(found, n_draws)


@pytest.mark.qemu
@pytest.mark.nightly
@pytest.mark.skipif(not QEMU, reason="no g++-aarch64-linux-gnu and qemu-user")
def test_the_same_tokens_as_upstream_under_qemu(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binaries = kv_helpers.build("llama", "arm64")
    monkeypatch.setenv("CXX", "aarch64-linux-gnu-g++")
    linked = f"-Wl,-rpath-link,{binaries}"
    program = kv_helpers.compile_driver("sampling.cpp", tree, tmp_path, linked, binaries=binaries)
    n_draws = effort.most(N_DRAWS, 10 * N_DRAWS)
    runner = ("qemu-aarch64", "-cpu", "max", "-L", "/usr/aarch64-linux-gnu")
    (found,) = lines(*runner, program, "draws", str(n_draws), "4", GGML_SELECT_KERNEL="neon")
    assert found["kernel"] == "neon"
    check_draws(found, n_draws)


@pytest.mark.compiler
@pytest.mark.core
def test_the_array_of_all_candidates_is_not_written(program: Path) -> None:
    found = {line["chain"]: (line["in_row"], line["written"], line["kept"]) for line in lines(program, "written")}
    for chain in ("greedy", "top-p", "min-p"):
        assert found[chain] == (True, 1, 1)
    for chain in ("top-k", "penalties, top-k", "top-n-sigma, top-k"):
        assert found[chain] == (True, 40, 40)
    assert found["dist"] == (False, 0, 0)  # it reads all candidates
    drawn = {line["chain"]: (line["drawn"], line["written_to_draw"]) for line in lines(program, "written")}
    for chain in ("top-p", "min-p", "dist", "temperature, dist", "temperature, top-p"):
        assert drawn[chain] == (True, 1)
    for chain in ("greedy", "top-k"):
        assert drawn[chain] == (False, 0)


@pytest.mark.compiler
@pytest.mark.core
def test_draws_follow_their_distribution(program: Path) -> None:
    found = lines(program, "chi")
    assert [line["filter"] for line in found] == ["top-k", "top-p", "min-p", "top-p", "min-p", "none"]
    assert [line["drawn"] for line in found] == [False] * 3 + [True] * 3
    for line in found:
        freedom = line["cells"] - 1
        assert freedom > 30
        assert line["in_row"] or line["drawn"]
        assert line["impossible"] == 0
        assert abs(line["chi2"] - freedom) < 4 * math.sqrt(2 * freedom)


@pytest.mark.compiler
def test_the_op_gives_the_indices_of_a_partial_sort(tree: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [kv_helpers.compile_driver("top_k_op.cpp", tree, tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout == f"{KINDS * 4 * 4 * 3} rows agree\n"


@pytest.mark.compiler
def test_upstreams_own_tests_of_sampling_pass(tree: Path, tmp_path: Path) -> None:
    binaries = kv_helpers.build("llama")
    include = [f"-I{tree / folder}" for folder in ("include", "ggml/include", "src")]
    libraries = [f"-L{binaries}", f"-Wl,-rpath,{binaries}", "-lllama", "-lggml", "-lggml-base"]
    source = tree / "tests" / "test-sampling.cpp"
    subprocess.run(
        ["c++", "-std=c++17", "-O1", "-w", "-UNDEBUG", *include, source, *libraries, "-o", tmp_path / "test"],
        check=True,
    )
    for stock in ("0", "1"):
        done = subprocess.run(
            [tmp_path / "test"], capture_output=True, text=True, env=os.environ | {"LLAMA_ARG_SAMPLERS_STOCK": stock}
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "OK" in done.stdout


CHAINS: list[dict[str, Any]] = [
    {},
    {"temperature": 0},
    {"top_k": 0, "top_p": 0.9, "min_p": 0},
    {"top_k": 0, "top_p": 1, "min_p": 0.02},
    {"repeat_penalty": 1.3, "dry_multiplier": 0.8, "logit_bias": [[5, 2.0], [7, False]]},
    {"samplers": ["temperature", "top_p"], "xtc_probability": 0.5},
    {"grammar": 'root ::= [a-z ]+ "."'},
    {"mirostat": 2},
]


@pytest.mark.compiler
@pytest.mark.slow
def test_the_server_answers_the_same_with_probabilities(tmp_path: Path) -> None:
    server = kv_helpers.build("llama-server") / "llama-server"
    model = tiny_models.write_model(tmp_path / "model.gguf", n_more=20_000)
    answers: list[list[Any]] = []
    for flags in ([], ["--samplers-stock"]):
        answers.append([])
        with server_process.start(server, "-m", model, "-c", "512", "-np", "1", *flags) as ask:
            for post in (False, True):
                for chain in CHAINS:
                    body = {"prompt": "Once", "n_predict": 24, "seed": 3, "n_probs": 8, "post_sampling_probs": post}
                    found = ask("POST", "/completion", body | {"cache_prompt": False} | chain)
                    answers[-1].append([found["content"], found["completion_probabilities"]])
    assert all(len(probabilities) > 0 for _, probabilities in answers[0])
    assert answers[0] == answers[1]
