"""Contexts that lose tokens again and again in the middle of tiles: they hold as many tokens as they were made for."""

from __future__ import annotations

import json
import random
import subprocess
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import effort
import pytest
import server_process
import tiny_models
from kv_helpers import BOUNDS, build, cache_types, compile_driver, compile_native, findings

pytestmark = [pytest.mark.compiler, pytest.mark.core]

N_CTX = 4096


@pytest.fixture(scope="module")
def program(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program that drives the cache through the C API."""
    return compile_driver("kv_cache.cpp", tree, tmp_path_factory.mktemp("kv cache"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is fast rather than telling."""
    shape = tiny_models.Shape(n_layer=1, n_embd=128, n_ff=128, n_head=2, n_head_kv=2, head_dim=64)
    return tiny_models.write_model(tmp_path_factory.mktemp("models") / "tiny.gguf", shape)


def test_contexts_become_full_and_tokens_are_repacked_rarely(tree: Path, tmp_path: Path) -> None:
    includes = [f"-I{tree / folder}" for folder in ("src", "include", "ggml/include")]
    sources = [tree / "src" / f"llama-kv-mixed-{name}.cpp" for name in ("cells", "planner", "shift")]
    program = compile_native("kv_fill.cpp", tmp_path, *sources, *includes)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["cells"] for row in rows] == [4096, 16384, 8192, 32768, 16384, 12800, 12800, 4096, 12800, 12800]
    assert all(row["used"] > 0.97 * row["cells"] for row in rows)
    ends, random_cuts, moved = rows[:5], rows[5:7], rows[7:]
    assert all(0 < row["repacked"] < 0.1 * row["appended"] and row["most"] == 1 for row in ends)
    assert all(row["repacked"] < 0.5 * row["appended"] and row["mean"] < 0.5 for row in random_cuts)
    assert all(0 < row["repacked"] < 0.5 * row["appended"] for row in moved)


@pytest.mark.parametrize("pair", ["k4v4", "k2v2", "k1v1", "k4", "v4"])
def test_logits_stay_near_those_of_f16(pair: str, program: Path, tmp_path: Path) -> None:
    model = tiny_models.write_model(tmp_path / "m.gguf", tiny_models.Shape())
    [found] = findings(program, model, "cuts", pair, ctx=1536, turns=4)
    assert found["used"] > 1536 - 64
    assert 0 < found["nmse"] < BOUNDS[pair]


@pytest.mark.parametrize("pair", ["k4v4", "k2v2", "k4", "v4"])
def test_a_context_whose_gaps_are_closed_becomes_full(pair: str, program: Path, tmp_path: Path) -> None:
    model = tiny_models.write_model(tmp_path / "m.gguf", tiny_models.Shape())
    [full] = findings(program, model, "gaps", pair, ctx=1536)
    assert full["used"] == 1500  # and a batch of 50 does not fit
    [roomy] = findings(program, model, "gaps", pair, ctx=4096, until=1500)
    assert 0 < full["nmse"] < 1.1 * roomy["nmse"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"seqs": 2, "unified": 1}], ids=str)
def test_a_context_becomes_full(options: dict[str, int], program: Path, tiny: Path) -> None:
    size = {"ctx": 2048, "append": 300, "remove": 280, "window": 64, "sink": 16}
    [found] = findings(program, tiny, "churn", "k4v4", compare=0, batch=50, **size, **options)
    assert found["used"] > found["cells"] - 50


# Tokens of the context, sequences of a unified cache, and what is appended and removed in turns.
CHURN = [(4096, 1, 600, 590), (8192, 1, 900, 840), (16384, 1, 600, 590), (16384, 4, 600, 590), (32768, 1, 1000, 900)]


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize(("cells", "seqs", "append", "remove"), CHURN[: effort.most(2, 5)])
def test_a_context_becomes_full_at_little_cost(
    cells: int, seqs: int, append: int, remove: int, tree: Path, tiny: Path, tmp_path: Path
) -> None:
    binaries = build("llama")
    includes = [f"-I{tree / folder}" for folder in ("src", "include", "ggml/include")]
    libraries = [f"-L{binaries}", f"-Wl,-rpath,{binaries}", "-lllama", "-lggml", "-lggml-base", "-ldl"]
    program = compile_native("kv_repack_cost.cpp", tmp_path, *includes, *libraries)
    size = {"ctx": cells // seqs, "seqs": seqs, "unified": int(seqs > 1), "append": append, "remove": remove}
    found, cost = findings(program, tiny, "churn", "k4v4", compare=0, window=256, sink=128, batch=100, **size)
    assert found["cells"] == cells
    assert found["used"] > 0.97 * cells
    assert 0 < cost["repacking"] < 0.05 * cost["all"]


@pytest.fixture(scope="module")
def server(tree: Path) -> Path:
    return build("llama-server") / "llama-server"


class Chat:
    """A conversation with a server, in tokens; what is not kept of an answer is not in the next prompt."""

    def __init__(self, ask: server_process.Ask, slot: int) -> None:
        self.ask = ask
        self.slot = slot
        self.rng = random.Random(slot)
        self.history: list[int] = []
        self.n_used = 0  # tokens of the longest turn

    def turn(self, n_prompt: int, n_predict: int, n_kept: int) -> None:
        self.history += self.rng.choices(range(10, 300), k=n_prompt)
        n_predict = min(n_predict, N_CTX - len(self.history))  # no more than a slot's share of a unified cache
        body = {"prompt": self.history, "n_predict": n_predict, "id_slot": self.slot, "cache_prompt": True}
        answer: Any = self.ask("POST", "/completion", {**body, "ignore_eos": True, "return_tokens": True})
        assert answer["tokens_predicted"] == n_predict, (len(self.history), answer["tokens_predicted"])
        self.n_used = max(self.n_used, len(self.history) + answer["tokens_predicted"])
        self.history += answer["tokens"][-n_kept:] if n_kept else []


SLOTS = {
    "one slot": (1, ["-c", str(N_CTX), "-np", "1"]),
    "two slots": (2, ["-c", str(2 * N_CTX), "-np", "2", "--no-kv-unified"]),
    "unified": (2, ["-c", str(2 * N_CTX), "-np", "2", "--kv-unified"]),
}


def chats(server: Path, model: Path, slots: str, n_turns: int, **turn: int) -> None:
    """Conversations of this many turns, until a context is full; those of several slots at once."""
    n_slots, argv = SLOTS[slots]
    k, v = cache_types("k4v4")
    common = ["-m", model, "-ctk", k, "-ctv", v, "--threads", "1", "--cache-ram", "0"]
    with server_process.start(server, *common, *argv) as ask, ThreadPoolExecutor(n_slots) as pool:
        talking = [Chat(ask, slot) for slot in range(n_slots)]

        def talk(chat: Chat) -> None:
            for i in range(n_turns):
                try:
                    n_predict = turn["n_predict"] + i % 4 * turn.get("more", 0)
                    chat.turn(turn["n_prompt"], n_predict, turn["n_kept"])
                except urllib.error.HTTPError as failure:
                    said = failure.read().decode()
                    raise AssertionError(f"turn {i}, {len(chat.history)} tokens: {said}") from None

        list(pool.map(talk, talking))
        assert all(chat.n_used >= turn["full"] for chat in talking)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("slots", SLOTS)
def test_a_chat_that_drops_its_reasoning_goes_on(slots: str, server: Path, tiny: Path) -> None:
    n_turns = effort.most(40, 210)
    size = {"n_prompt": 9, "n_predict": 600, "more": 100, "n_kept": 9}
    chats(server, tiny, slots, n_turns, **size, full=N_CTX if n_turns > 200 else 18 * n_turns + 600)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("slots", SLOTS)
def test_requests_that_grow_slowly_go_on(slots: str, server: Path, tiny: Path) -> None:
    n_prompt = 8 if slots == "one slot" else 16
    n_turns = effort.most(800, 3680) // n_prompt
    full = min(N_CTX, n_prompt * n_turns + 500)
    chats(server, tiny, slots, n_turns, n_prompt=n_prompt, n_predict=500, n_kept=0, full=full)
