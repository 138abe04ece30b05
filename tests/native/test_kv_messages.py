"""What llama.cpp's own tools say, without being asked to, of packed caches: their size, why there is none, why not."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
import server_process
import tiny_models
from kv_helpers import build, cache_types

pytestmark = [pytest.mark.compiler, pytest.mark.slow]

K, V = cache_types("k4v4")


@pytest.fixture(scope="module")
def model(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_model(tmp_path_factory.mktemp("model") / "M.gguf", tiny_models.Shape.of("llama", 128))


def bench(model: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [str(build("llama-bench") / "llama-bench"), "-m", str(model), "-p", "64", "-n", "0", "-r", "1", "-t", "1"]
    return subprocess.run([*command, *argv], capture_output=True, text=True, check=False)


def served(model: Path, *argv: str) -> str:
    """What a server prints until it answers."""
    port = server_process.free_port()
    command = [str(build("llama-server") / "llama-server"), "-m", str(model), "--port", str(port), "-t", "1", *argv]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        said = ""
        until = time.monotonic() + 600
        for line in server.stdout:
            said += line
            if "n_slots" in line or time.monotonic() > until:
                break
        server.terminate()
        return said + server.stdout.read()


def test_a_server_whose_slots_leave_nothing_to_pack_warns_with_the_arithmetic(model: Path) -> None:
    """With four slots, the default, 2560 tokens stay in f16."""
    said = served(model, "-c", "2048", "-ctk", K, "-ctv", V)
    assert "4 sequence(s) × (128 sinks + a window of 256 + 128) + a ubatch of 512 = 2560 f16 cells" in said
    assert "would take 127 % of what f16 takes: for a packed cache use a larger -c, fewer sequences (-np)" in said
    assert "2560 f16 cells" not in served(model, "-c", "2048", "-np", "1", "-ctk", K, "-ctv", V)


def test_what_is_allocated_is_printed_without_being_asked_for(model: Path) -> None:
    said = served(model, "-c", "8192", "-np", "1", "-ctk", K, "-ctv", V)
    assert "packed part" in said
    assert "f16 alone would take" in said


def test_llama_bench_takes_window_and_sink(model: Path) -> None:
    done = bench(model, "-v", "-ctk", K, "-ctv", V, "-d", "4096", "--kv-window", "384", "--kv-sink", "64")
    assert done.returncode == 0, done.stderr
    assert "for 64 sinks, a window of 384" in done.stderr
    assert "--kv-window" in bench(model, "--help").stdout


@pytest.mark.parametrize("wrong", [("--kv-window", "x"), ("--kv-sink", "1,2"), ("--kv-sink", "-1"), ("--kv-window",)])
def test_llama_bench_refuses_what_is_no_number_of_tokens(model: Path, wrong: tuple[str, ...]) -> None:
    done = bench(model, *wrong)
    assert done.returncode == 1
    assert f"invalid parameter for argument: {wrong[0]}" in done.stderr


def test_llama_bench_prints_why_a_context_was_refused(model: Path) -> None:
    done = bench(model, "-ctk", V, "-ctv", V)
    assert done.returncode == 1
    assert "do not go together: K needs f16 or a qlutattn_k* type" in done.stderr
