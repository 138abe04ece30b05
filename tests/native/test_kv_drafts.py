"""Draft and MTP contexts with packed caches: which of them are packed, and speculative decoding in llama-server."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import server_process
import tiny_hybrids
import tiny_models
from kv_helpers import build, cache_types, compile_driver

from qlutattn_patch.commands import main
from qlutattn_patch.workspace import Workspace

pytestmark = [pytest.mark.compiler, pytest.mark.core]

PROMPTS = [" ".join(f"{word} {i}" for i in range(150)) for word in ("tile", "token", "cache", "window", "scale", "key")]


@pytest.fixture(scope="module")
def tree() -> Path:
    """The project's own vendored tree, with the patches in it."""
    assert main.run(["apply"]) == 0
    return Workspace.find().tree


@pytest.fixture(scope="module")
def program(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_driver("kv_draft.cpp", tree, tmp_path_factory.mktemp("kv draft"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model, one that mostly says the same, one with a draft head, a hybrid one, and one with nothing to pack."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "llama": tiny_models.write_model(folder / "llama.gguf"),
        "blurred": tiny_models.write_model(folder / "blurred.gguf", blur=0.1),
        "mtp": tiny_hybrids.write_hybrid(folder / "mtp.gguf", "qwen35", mtp=True),
        "nemotron_h": tiny_hybrids.write_hybrid(folder / "nemotron_h.gguf", "nemotron_h"),
        "windows": tiny_models.write_model(folder / "windows.gguf", tiny_models.Shape(arch="gemma3", n_layer=1)),
    }


@pytest.mark.parametrize(
    ("target", "pair", "draft", "options", "says"),
    [
        ("llama", "f16", "llama", [], "packed: "),
        ("llama", "k4v4", "llama", [], "packed: "),
        ("mtp", "f16", "mtp", [], "packed: "),
        ("mtp", "k4v4", "mtp", [], "packed: "),
        ("llama", "f16", "windows", [], "the cache of this context is f16: every layer has a sliding window"),
        (
            "llama",
            "f16",
            "llama",
            ["fa_off=1"],
            "refused: llama_kv_cache_mixed_check: packed caches need flash attention",
        ),
    ],
)
def test_a_draft_context_is_packed_or_says_why_not(
    target: str, pair: str, draft: str, options: list[str], says: str, program: Path, models: dict[str, Path]
) -> None:
    beside = "mtp" if draft == "mtp" else models[draft]
    argv = [program, models[target], *cache_types(pair), beside, *cache_types("k4v4"), *options]
    done = subprocess.run([str(one) for one in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout


@dataclass(frozen=True)
class Answers:
    """What a server said to the prompts, and how many drafted tokens there were and were right."""

    tokens: list[list[int]]
    drafted: int
    accepted: int


def answers(server: Path, model: Path, pair: str, *more: str | Path) -> Answers:
    """Ask a server greedily."""
    k, v = cache_types(pair)
    argv = ["-m", model, "-c", "4096", "-np", "1", "-ctk", k, "-ctv", v, "--kv-window", "64", "--kv-sink", "16", *more]
    tokens, drafted, accepted = [], 0, 0
    with server_process.start(server, *argv, "--threads", "1", "--cache-ram", "0") as ask:
        for prompt in PROMPTS:
            body = {"prompt": prompt, "n_predict": 400, "temperature": 0, "ignore_eos": True, "return_tokens": True}
            answer = ask("POST", "/completion", body)
            tokens.append(answer["tokens"])
            drafted += answer["timings"].get("draft_n", 0)
            accepted += answer["timings"].get("draft_n_accepted", 0)
    return Answers(tokens, drafted, accepted)


@pytest.fixture(scope="module")
def server(tree: Path) -> Path:
    return build("llama-server") / "llama-server"


# target, how it drafts, and the draft model
DRAFTS = [("llama", "draft-simple", "blurred"), ("mtp", "draft-mtp", ""), ("nemotron_h", "draft-simple", "blurred")]


@pytest.mark.slow
@pytest.mark.parametrize(("target", "kind", "draft"), DRAFTS)
def test_a_draft_does_not_change_the_tokens(
    target: str, kind: str, draft: str, server: Path, models: dict[str, Path]
) -> None:
    k, v = cache_types("k4v4")
    model = ["-md", models[draft]] if draft else []
    spec = [*model, "--spec-type", kind, "--spec-draft-n-max", "4", "--spec-draft-p-min", "0", "-fa", "on"]
    plain = answers(server, models[target], "k4v4")
    with_packed = answers(server, models[target], "k4v4", *spec, "-ctkd", k, "-ctvd", v)
    with_f16 = answers(server, models[target], "k4v4", *spec)
    assert with_packed.tokens == plain.tokens
    assert with_f16.tokens == plain.tokens
    assert with_packed.drafted > 1000
    rates = [run.accepted / run.drafted for run in (with_packed, with_f16)]
    assert rates[0] == pytest.approx(rates[1], abs=0.02)
    # a hybrid model with a foreign draft is for what happens when drafts are wrong
    assert 0.2 < rates[0] < 0.98 or target == "nemotron_h"
