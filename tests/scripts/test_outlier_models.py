"""scripts/outlier_models.py: its variants of a tiny model have outliers, and compute nearly the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from helpers import ROOT
from numpy.typing import NDArray
from tiny_models import Shape, write_model

SCRIPT = ROOT / "scripts" / "outlier_models.py"
Weights = dict[str, NDArray[np.float32]]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, SCRIPT, *words]
    return subprocess.run([str(word) for word in argv], cwd=ROOT, capture_output=True, text=True, check=False)


def read(path: Path) -> Weights:
    return {tensor.name: np.asarray(tensor.data, np.float32) for tensor in GGUFReader(path).tensors}


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Weights]:
    """The weights of a model and of its variants."""
    folder = tmp_path_factory.mktemp("models")
    model = write_model(folder / "tiny.gguf")
    done = run(model, folder / "made", "--only", "bias100|channel100|value30")
    assert done.returncode == 0, done.stderr
    paths = [Path(line) for line in done.stdout.splitlines()]
    assert [path.name for path in paths] == [f"tiny-{name}.gguf" for name in ("bias100", "channel100", "value30")]
    return {"plain": read(model)} | {path.stem.removeprefix("tiny-"): read(path) for path in paths}


def test_other_tensors_and_all_keys_stay(variants: dict[str, Weights], tmp_path: Path) -> None:
    plain = variants["plain"]
    for name, weights in variants.items():
        changed = {key for key in weights if key not in plain or not np.array_equal(weights[key], plain[key])}
        touched = {"plain": set(), "bias100": {"attn_k.bias"}, "channel100": {"attn_q.weight", "attn_k.weight"}}
        allowed = touched.get(name, {"attn_v.weight", "attn_output.weight"})
        assert {key.split(".", 2)[2] for key in changed} == allowed, name
        assert set(plain) <= set(weights)
    model = write_model(tmp_path / "tiny.gguf")
    assert run(model, tmp_path, "--only", "bias30").returncode == 0
    fields = [
        {k: f.contents() for k, f in GGUFReader(path).fields.items() if not k.startswith("GGUF.")}
        for path in (model, tmp_path / "tiny-bias30.gguf")
    ]
    assert fields[0] == fields[1]


def test_a_biased_key_has_two_channels_of_each_head(variants: dict[str, Weights]) -> None:
    bias = variants["bias100"]["blk.1.attn_k.bias"].reshape(-1, 128)
    assert [list(np.flatnonzero(head)) for head in bias] == [[124, 126]] * len(bias)
    assert set(bias[bias != 0]) == {100}


def test_a_long_channel_leaves_scores_as_they_are(variants: dict[str, Weights]) -> None:
    plain, made = (
        {name: variants[kind][f"blk.0.{name}.weight"].reshape(-1, 128, 256) for name in ("attn_q", "attn_k")}
        for kind in ("plain", "channel100")
    )
    ratio = np.abs(made["attn_k"]).max((0, 2)) / np.abs(plain["attn_k"]).max((0, 2))
    assert list(np.flatnonzero(np.abs(ratio - 100) < 0.01)) == [96, 97]
    for channel in (96, 97, 5):
        before, after = (w["attn_q"][0, channel].T[:, None] * w["attn_k"][0, channel] for w in (plain, made))
        assert np.allclose(before, after, rtol=1e-5, atol=1e-9)


def test_a_massive_value_is_invisible_behind_the_output(variants: dict[str, Weights]) -> None:
    plain, made = variants["plain"], variants["value30"]
    token = plain["token_embd.weight"]
    inputs = token / np.sqrt((token * token).mean(1, keepdims=True)) * plain["blk.0.attn_norm.weight"]
    before, after = (np.linalg.norm(inputs @ w["blk.0.attn_v.weight"].T, axis=1) for w in (plain, made))
    longest = int(np.argmax(after / before))
    assert after[longest] > 20 * np.median(before)
    assert np.median(after) < 3 * np.median(before)
    seen = inputs[longest] @ (made["blk.0.attn_v.weight"] - plain["blk.0.attn_v.weight"]).T
    head = made["blk.0.attn_output.weight"][:, :128] @ seen[:128]
    assert np.abs(head).max() < 1e-3 * np.linalg.norm(seen)


@pytest.mark.parametrize(
    ("arch", "only", "said"),
    [("qwen3", "bias", "normalises its keys"), ("gemma4", "channel", "has the architecture 'gemma4'")],
)
def test_what_it_cannot_change_it_refuses(tmp_path: Path, arch: str, only: str, said: str) -> None:
    model = write_model(tmp_path / "tiny.gguf", Shape.of(arch, 128))
    done = run(model, tmp_path / "made", "--only", only)
    assert done.returncode == 1
    assert said in done.stderr
    assert not list(tmp_path.glob("made/*.gguf"))


def test_normalised_keys_are_widened_by_their_norms(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny.gguf", Shape.of("qwen3", 128))
    assert run(model, tmp_path, "--only", "channel100").returncode == 0
    plain, made = read(model), read(tmp_path / "tiny-channel100.gguf")
    ratio = made["blk.0.attn_k_norm.weight"] / plain["blk.0.attn_k_norm.weight"]
    assert [round(float(x)) for x in ratio[[47, 48, 111, 112]]] == [1, 100, 1, 100]
    assert np.allclose(ratio * made["blk.0.attn_q_norm.weight"], plain["blk.0.attn_q_norm.weight"])
