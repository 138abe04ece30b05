"""The metadata of GGUF files, whole and damaged."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import tiny_models

from qlutattn_patch.measure.attention_layers import read_model
from qlutattn_patch.measure.gguf_header import read_header
from qlutattn_patch.system.errors import ExpectedError


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_model(tmp_path_factory.mktemp("model") / "M.gguf")


def test_numbers_and_texts_are_read_and_the_tokenizer_is_passed_over(file: Path) -> None:
    header = read_header(file)
    assert header["general.architecture"] == "llama"
    assert header["llama.attention.head_count_kv"] == 2
    assert header["llama.context_length"] == 65536
    assert "tokenizer.ggml.tokens" not in header
    assert isinstance(header["llama.attention.layer_norm_rms_epsilon"], float)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "damaged"),
        (b"not a model at all", "does not start with GGUF"),
        (b"GGUF\0\0\0\x03" + bytes(16), "big-endian"),
        (b"GGUF\x03\0\0\0", "ends within"),
    ],
)
def test_what_is_no_gguf_file_is_refused(data: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "M.gguf"
    path.write_bytes(data)
    with pytest.raises(ExpectedError, match=why):
        read_header(path)


@pytest.mark.parametrize("name", ["none.gguf", "."])
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExpectedError, match="There is no model file"):
        read_header(tmp_path / name)


def test_damage_is_refused_and_nothing_else_happens(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()[:4096]
    damaged = tmp_path / "damaged.gguf"
    chance = random.Random(1)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(4, len(data))] = chance.randrange(256)
        damaged.write_bytes(data[: chance.randrange(4, len(data))] if chance.random() < 0.5 else data)
        try:
            read_model(read_header(damaged), "damaged")
        except ExpectedError:
            refused += 1
    assert refused > 200
