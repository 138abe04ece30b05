"""Draft and MTP contexts with packed caches, and tokens that are verified together: as if decoded one by one."""

from __future__ import annotations

import json
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
from kv_helpers import build, cache_types, compile_driver, compile_native, findings

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


def test_what_a_token_sees_does_not_depend_on_drafts(tree: Path, tmp_path: Path) -> None:
    includes = [f"-I{tree / folder}" for folder in ("src", "include", "ggml/include")]
    sources = [tree / "src" / f"llama-kv-mixed-{name}.cpp" for name in ("cells", "planner")]
    program = compile_native("kv_seen.cpp", tmp_path, *sources, *includes)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 36
    assert all(row["ahead"] > 0 for row in rows)


# the hybrid model takes tokens back by snapshots, for which they must be in one ubatch
@pytest.mark.parametrize(("target", "options"), [("llama", {}), ("mtp", {"rs": 8})])
def test_tokens_that_are_verified_together_give_the_logits_of_single_ones(
    target: str, options: dict[str, int], tree: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    program = compile_driver("kv_verify.cpp", tree, tmp_path)

    def differences(pair: str) -> tuple[int, float]:
        rows = findings(program, models[target], "drafts", pair, **options, prompts=3, prompt=400, window=64)
        assert all(row["rejected"] > 50 for row in rows)
        return sum(row["other"] for row in rows), sum(row["nmse"] for row in rows)

    # a product of several rows rounds differently, with any cache
    other_f16, nmse_f16 = differences("f16")
    for pair in ("k4v4", "k2v2"):
        other, nmse = differences(pair)
        assert other <= other_f16
        assert nmse < 20 * nmse_f16


@dataclass(frozen=True)
class Answers:
    """What a server said to the prompts, and how many drafted tokens there were and were right."""

    tokens: list[list[int]]
    drafted: int
    accepted: int


def answers(server: Path, model: Path, pair: str, window: int, *more: str | Path) -> Answers:
    """Ask a server with a packed cache greedily."""
    argv = ["-m", model, "-c", "4096", "-np", "1", *flags(pair, "-ctk", "-ctv"), "--kv-sink", "16", *more]
    tokens, drafted, accepted = [], 0, 0
    with server_process.start(server, *argv, "--kv-window", str(window), "--threads", "1", "--cache-ram", "0") as ask:
        for prompt in PROMPTS:
            body = {"prompt": prompt, "n_predict": 400, "temperature": 0, "ignore_eos": True, "return_tokens": True}
            answer = ask("POST", "/completion", body)
            tokens.append(answer["tokens"])
            drafted += answer["timings"].get("draft_n", 0)
            accepted += answer["timings"].get("draft_n_accepted", 0)
    return Answers(tokens, drafted, accepted)


def flags(pair: str, k: str, v: str) -> list[str]:
    """The flags for the types of keys and values."""
    types = cache_types(pair)
    return [k, types[0], v, types[1]]


@pytest.fixture(scope="module")
def server(tree: Path) -> Path:
    return build("llama-server") / "llama-server"


# Target, how it drafts, the draft model, types, window, and the share of drafts that are right at least: those for lfm2
# and those of DFlash are all wrong.
DRAFTS = [
    ("llama", "draft-simple", "blurred", "k4v4", 64, 0.2),
    ("llama", "draft-simple", "blurred", "k2v2", 256, 0.2),
    ("mtp", "draft-mtp", "", "k4v4", 64, 0.2),
    ("lfm2", "draft-simple", "llama", "k4v4", 256, 0),
    ("eagle3-target", "draft-eagle3", "eagle3", "k4v4", 64, 0.1),
    ("llama", "draft-dflash", "dflash", "k4v4", 64, 0),
]


@pytest.mark.slow
@pytest.mark.parametrize(("target", "kind", "draft", "pair", "window", "least"), DRAFTS)
def test_a_draft_does_not_change_the_tokens(
    target: str, kind: str, draft: str, pair: str, window: int, least: float, server: Path, models: dict[str, Path]
) -> None:
    model = ["-md", models[draft]] if draft else []
    spec = [*model, "--spec-type", kind, "--spec-draft-n-max", "4", "--spec-draft-p-min", "0"]
    plain = answers(server, models[target], pair, window)
    packed = answers(server, models[target], pair, window, *spec, *flags(pair, "-ctkd", "-ctvd"))
    f16 = answers(server, models[target], pair, window, *spec)
    assert packed.tokens == plain.tokens
    assert f16.tokens == plain.tokens
    assert packed.drafted > 1000
    assert packed.accepted >= least * packed.drafted
    if pair == "k4v4":  # with 2 bits, a draft that loses what its target loses guesses better than one in f16
        assert packed.accepted / packed.drafted == pytest.approx(f16.accepted / f16.drafted, abs=0.02)


MTP = ["--spec-type", "draft-mtp", "--spec-draft-n-max", "4", "--spec-draft-p-min", "0"]


@pytest.mark.slow
def test_several_draft_heads_guess_as_well_beside_a_packed_cache(server: Path, models: dict[str, Path]) -> None:
    packed = answers(server, models["step35"], "k4v4", 64, *MTP, *flags("k4v4", "-ctkd", "-ctvd"))
    f16 = answers(server, models["step35"], "f16", 64, *MTP)
    assert packed.drafted > 1000
    assert packed.accepted > packed.drafted / 2
    assert packed.accepted / packed.drafted == pytest.approx(f16.accepted / f16.drafted, abs=0.02)


@pytest.mark.slow
def test_a_draft_model_that_reads_the_cache_of_its_target(server: Path, models: dict[str, Path]) -> None:
    plain = answers(server, models["gemma4"], "f16", 64)
    draft = ["-md", models["assistant"], *MTP, *flags("k4v4", "-ctkd", "-ctvd")]
    drafted = answers(server, models["gemma4"], "f16", 64, *draft)
    assert drafted.tokens == plain.tokens
    assert drafted.drafted > 1000
