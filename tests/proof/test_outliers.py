"""`qlutattn eval --task outliers`: what a second axis of metadata repairs, and what the command refuses."""

from __future__ import annotations

import json

import documents
import numpy as np
import pytest

from qlutattn_patch.commands import main
from qlutattn_patch.proof import outliers, second_axis
from qlutattn_patch.proof.reference.quantise import quantise
from qlutattn_patch.proof.reference.tile import CODES
from qlutattn_patch.system.errors import ExpectedError


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, float]]:
    """The mean error by data and cache."""
    names = "q4_0,K4V4,K4mV4s,K4d8V4s8,K4d8d8V4d8s8,K4sV4m,K2V2,K2d8d8V2d8s8"
    found: dict[str, dict[str, float]] = {}
    for row in outliers.measure(second_axis.parse(names), 2, lambda *_: None).rows:
        found.setdefault(row.data, {})[row.cache] = row.error
    return found


def test_a_mean_or_direction_of_keys_repairs_constant_channels(errors: dict[str, dict[str, float]]) -> None:
    gaussian = errors["Gaussian"]["K4V4"]
    for data in ("K one channel constant +100", "K two channels constant +300"):
        assert errors[data]["K4V4"] > 20 * gaussian
        for cache in ("K4mV4s", "K4d8V4s8", "K4d8d8V4d8s8"):
            assert errors[data][cache] < 2 * gaussian
        assert errors[data]["K2d8d8V2d8s8"] < errors[data]["K2V2"] / 10
        assert errors[data]["K4sV4m"] > 20 * gaussian  # rotation has spread the constant over all channels


def test_only_a_direction_repairs_a_channel_of_both_signs(errors: dict[str, dict[str, float]]) -> None:
    found = errors["K one channel × 100"]
    assert found["K4d8V4s8"] < found["q4_0"] / 10 < found["K4mV4s"]
    assert found["K4d8V4s8"] < found["K4V4"] / 5


def test_a_turning_pair_has_two_directions(errors: dict[str, dict[str, float]]) -> None:
    found = errors["K a pair +100 turning in 512 tokens"]
    assert found["K4d8d8V4d8s8"] < 2 * errors["Gaussian"]["K4V4"]
    assert found["K4d8V4s8"] > 5 * found["K4d8d8V4d8s8"]


def test_a_scale_per_token_repairs_massive_values(errors: dict[str, dict[str, float]]) -> None:
    gaussian = errors["Gaussian"]["K4V4"]
    found = errors["V one token in 128 × 100"]
    assert max(found["K4mV4s"], found["K4d8V4s8"]) < 2 * gaussian < found["K4V4"] / 10
    assert found["K4sV4m"] > found["K4V4"] / 2


def test_without_a_second_axis_tiles_are_the_formats() -> None:
    x = np.random.default_rng(5).standard_normal((256, 128)).astype(np.float16).astype(np.float64)
    (cache,) = second_axis.parse("K4V2")
    assert np.array_equal(cache.keys(x), quantise(x, CODES[4]).values())
    lanes = x.reshape(2, 128, 128).swapaxes(-1, -2)
    assert np.array_equal(cache.values(x), quantise(lanes, CODES[2]).values().swapaxes(-1, -2).reshape(x.shape))


def test_lanes_of_one_value_or_none_have_a_direction() -> None:
    (cache,) = second_axis.parse("K4dV4s")
    for x in (np.zeros((128, 128)), np.full((128, 128), 3.0)):
        assert np.allclose(cache.keys(x), x)
        assert np.allclose(cache.values(x), x)


@pytest.mark.parametrize(
    ("name", "bpw"),
    [("K4V4", 4.25), ("K4dV4s", 4.375), ("K2d8V2s8", 2.3125), ("K4msV4", 4.375), ("K4d8d8V4d8s8", 4.4375)],
)
def test_the_bits_count_both_axes(name: str, bpw: float) -> None:
    assert second_axis.parse(name)[0].bpw == bpw


def test_a_cache_of_another_notation_is_refused() -> None:
    with pytest.raises(ExpectedError, match="not 'K4V4t'"):
        second_axis.parse("q8_0,K4V4t")


def test_the_command_prints_a_table_and_its_document(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--task", "outliers", "--types", "q4_0,K4dV4s", "--draws", "1"]
    assert main.run(words) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[1].split() == ["bits", "per", "value", "4.5", "4.375"]
    assert main.run([*words, "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    documents.check(document)
    assert {row["cache"] for row in document["rows"]} == {"q4_0", "K4dV4s"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--task", "outliers", "--ctx", "512"], 3, "takes no --ctx"),
        (["--task", "outliers", "--plot", "x.svg"], 3, "takes no --plot"),
        (["--model", "M.gguf", "--text", "T.txt", "--draws", "3"], 3, "only the task outliers takes --draws"),
        (["--text", "T.txt"], 2, "Missing option '--model'"),
        (["--model", "M.gguf"], 2, "Missing option '--text'"),
    ],
)
def test_options_of_the_other_task_are_refused(
    words: list[str], code: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["eval", *words]) == code
    assert said in capfd.readouterr().err
