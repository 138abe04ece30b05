"""Draft and MTP contexts with packed caches: which of them are packed, and speculative decoding in llama-server."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import server_process
import tiny_assistant
import tiny_dflash
import tiny_eagle3
import tiny_hybrids
import tiny_models
import tiny_step35
from kv_helpers import build, cache_types, compile_driver

pytestmark = [pytest.mark.compiler, pytest.mark.core]

PROMPTS = [" ".join(f"{word} {i}" for i in range(150)) for word in ("tile", "token", "cache", "window", "scale", "key")]


@pytest.fixture(scope="module")
def program(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_driver("kv_draft.cpp", tree, tmp_path_factory.mktemp("kv draft"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model, one that mostly says the same, one with a draft head, a hybrid one, and others."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "llama": tiny_models.write_model(folder / "llama.gguf"),
        "blurred": tiny_models.write_model(folder / "blurred.gguf", blur=0.1),
        "mtp": tiny_hybrids.write_hybrid(folder / "mtp.gguf", "qwen35", mtp=True),
        "lfm2": tiny_hybrids.write_hybrid(folder / "lfm2.gguf", "lfm2"),
        "eagle3-target": tiny_models.write_model(folder / "target.gguf", tiny_eagle3.TARGET),
        "eagle3": tiny_eagle3.write_eagle3(folder / "eagle3.gguf"),
        "dflash": tiny_dflash.write_dflash(folder / "dflash.gguf"),
        "step35": tiny_step35.write_step35(folder / "step35.gguf"),
        "gemma4": tiny_models.write_model(folder / "gemma4.gguf", tiny_assistant.TARGET),
        "assistant": tiny_assistant.write_assistant(folder / "assistant.gguf"),
        "windows": tiny_models.write_model(folder / "windows.gguf", tiny_models.Shape(arch="gemma3", n_layer=1)),
    }


@pytest.mark.parametrize(
    ("target", "pair", "draft", "options", "says"),
    [
        ("llama", "f16", "llama", [], "packed: "),
        ("llama", "k4v4", "llama", [], "packed: "),
        ("mtp", "f16", "mtp", [], "packed: "),
        ("mtp", "k4v4", "mtp", [], "packed: "),
        ("eagle3-target", "f16", "eagle3", ["decode=0"], "packed: "),
        ("eagle3-target", "k4v4", "eagle3", ["decode=0"], "packed: "),
        ("llama", "k4v4", "dflash", ["decode=0"], "of this context is f16: DFlash draft models write"),
        ("step35", "k4v4", "mtp", [], "the cache of this context is f16: several draft heads"),
        ("gemma4", "f16", "assistant", ["decode=0"], "of this context is f16: this draft model reads the cache of"),
        (
            "gemma4",
            "k4v4",
            "assistant",
            ["decode=0"],
            "refused: llama_kv_cache_mixed_check: this draft model reads the cache of its target, which must not be",
        ),
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


def answers(server: Path, model: Path, window: int, *more: str | Path) -> Answers:
    """Ask a server with a packed cache greedily."""
    argv = ["-m", model, "-c", "4096", "-np", "1", *flags("-ctk", "-ctv"), "--kv-sink", "16", *more]
    tokens, drafted, accepted = [], 0, 0
    with server_process.start(server, *argv, "--kv-window", str(window), "--threads", "1", "--cache-ram", "0") as ask:
        for prompt in PROMPTS:
            body = {"prompt": prompt, "n_predict": 400, "temperature": 0, "ignore_eos": True, "return_tokens": True}
            answer = ask("POST", "/completion", body)
            tokens.append(answer["tokens"])
            drafted += answer["timings"].get("draft_n", 0)
            accepted += answer["timings"].get("draft_n_accepted", 0)
    return Answers(tokens, drafted, accepted)


def flags(k: str, v: str) -> list[str]:
    """The flags for packed keys and values."""
    types = cache_types("k4v4")
    return [k, types[0], v, types[1]]


@pytest.fixture(scope="module")
def server(tree: Path) -> Path:
    return build("llama-server") / "llama-server"


# Target, how it drafts, the draft model, the window, and the share of drafts that are right at least. Tokens that are
# verified together see a tile packed a little later than one by one, which a random model may notice; the hybrid one,
# whose drafts are all wrong here as are those of DFlash, has no tiles.
DRAFTS = [
    ("llama", "draft-simple", "blurred", 64, 0.2),
    ("mtp", "draft-mtp", "", 64, 0.2),
    ("lfm2", "draft-simple", "llama", 4000, 0),
    ("eagle3-target", "draft-eagle3", "eagle3", 64, 0.1),
    ("llama", "draft-dflash", "dflash", 64, 0),
]


@pytest.mark.slow
@pytest.mark.parametrize(("target", "kind", "draft", "window", "least"), DRAFTS)
def test_a_draft_does_not_change_the_tokens(
    target: str, kind: str, draft: str, window: int, least: float, server: Path, models: dict[str, Path]
) -> None:
    model = ["-md", models[draft]] if draft else []
    spec = [*model, "--spec-type", kind, "--spec-draft-n-max", "4", "--spec-draft-p-min", "0"]
    plain = answers(server, models[target], window)
    packed = answers(server, models[target], window, *spec, *flags("-ctkd", "-ctvd"))
    f16 = answers(server, models[target], window, *spec)
    assert packed.tokens == plain.tokens
    assert f16.tokens == plain.tokens
    assert packed.drafted > 1000
    assert packed.accepted >= least * packed.drafted
    assert packed.accepted / packed.drafted == pytest.approx(f16.accepted / f16.drafted, abs=0.02)


MTP = ["--spec-type", "draft-mtp", "--spec-draft-n-max", "4", "--spec-draft-p-min", "0"]
F16 = ["-ctk", "f16", "-ctv", "f16"]


@pytest.mark.slow
def test_several_draft_heads_guess_as_well_beside_a_packed_cache(server: Path, models: dict[str, Path]) -> None:
    packed = answers(server, models["step35"], 64, *MTP, *flags("-ctkd", "-ctvd"))
    f16 = answers(server, models["step35"], 64, *F16, *MTP)
    assert packed.drafted > 1000
    assert packed.accepted > packed.drafted / 2
    assert packed.accepted / packed.drafted == pytest.approx(f16.accepted / f16.drafted, abs=0.02)


@pytest.mark.slow
def test_a_draft_model_that_reads_the_cache_of_its_target(server: Path, models: dict[str, Path]) -> None:
    plain = answers(server, models["gemma4"], 64, *F16)
    drafted = answers(server, models["gemma4"], 64, *F16, "-md", models["assistant"], *MTP, *flags("-ctkd", "-ctvd"))
    assert drafted.tokens == plain.tokens
    assert drafted.drafted > 1000
