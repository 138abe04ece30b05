"""The bytes of tiles: hand-worked ones, the example in the specification, both layouts against its sentences."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qlutattn_patch.proof.reference.quantise import pack, unpack
from qlutattn_patch.proof.reference.tile import CODES, Code, Kind, Tiles, from_bytes, to_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[3]
VECTORS = sorted((ROOT / "tests" / "vectors").glob("*.toml"))


def runs(entries: list[dict[str, Any]]) -> list[Any]:
    values = [value for run in entries for _ in range(run["times"]) for value in run["values"]]
    assert len(values) == 128
    return values


@pytest.fixture(params=VECTORS, ids=lambda path: path.stem)
def vector(request: pytest.FixtureRequest) -> dict[str, Any]:
    loaded: dict[str, Any] = tomllib.loads(request.param.read_text(encoding="utf-8"))
    return loaded


def source_of(vector: dict[str, Any]) -> np.ndarray:
    """The source [1, 1, token, 128] that holds the vector's lanes."""
    lanes = np.zeros((128, 128), {"f16": np.float16, "f32": np.float32}[vector["source"]])
    for lane in vector["lane"]:
        values = np.asarray(runs(lane["runs"]))
        lanes[lane["lane"]] = values
        np.testing.assert_array_equal(lanes[lane["lane"]].astype(np.float64), values)
    return (lanes if Kind.of(vector["type"]).side == "k" else lanes.T)[None, None]


def bytes_of(vector: dict[str, Any]) -> np.ndarray:
    data = np.zeros(Kind.of(vector["type"]).tile_bytes, np.uint8)
    for entry in vector["bytes"]:
        piece = np.frombuffer(bytes.fromhex(entry["hex"]), np.uint8)
        for i in range(entry.get("times", 1)):
            at = entry["at"] + i * entry.get("every", 0)
            assert not data[at : at + len(piece)].any(), f"byte {at} is given twice"
            data[at : at + len(piece)] = piece
    return data


def test_vectors_cover_all_bit_widths_and_both_sides() -> None:
    kinds = {Kind.of(tomllib.loads(path.read_text(encoding="utf-8"))["type"]) for path in VECTORS}
    assert {kind.bits for kind in kinds} == {1, 2, 4, 8}
    assert {kind.side for kind in kinds} == {"k", "v"}


def test_packer_gives_the_hand_worked_bytes(vector: dict[str, Any]) -> None:
    found = pack(source_of(vector), Kind.of(vector["type"]))[0, 0, 0]
    np.testing.assert_array_equal(np.flatnonzero(found != bytes_of(vector)), [])


def test_decoder_reads_the_hand_worked_lanes(vector: dict[str, Any]) -> None:
    kind = Kind.of(vector["type"])
    tile = from_bytes(bytes_of(vector), kind.code)
    listed = [lane["lane"] for lane in vector["lane"]]
    for lane in vector["lane"]:
        at = lane["lane"]
        assert f"{tile.scale[at].view(np.uint16):04x}" == lane["scale"]
        assert f"{tile.offset[at].view(np.uint16):04x}" == lane["offset"]
        assert tile.codes[at].tolist() == runs(lane["codes"])
    rest = np.setdiff1d(np.arange(128), listed)
    assert not tile.values()[rest].any()


def test_constants_are_the_tables() -> None:
    table = tomllib.loads((ROOT / "templates" / "formats.toml").read_text(encoding="utf-8"))
    for bits, book in table["codebook"].items():
        assert CODES[int(bits)] == Code(tuple(book["levels"]), book["rms_to_scale"], book["layout"])
    assert table["tile"]["metadata"] == ["scale", "offset"]
    assert CODES[8] == Code(tuple(np.arange(256).astype(np.int8).tolist()), 0.0, "dot", has_offset=False)
    for entry in table["type"]:
        assert Kind.of(entry.pop("name")) == Kind(entry["side"], CODES[entry["bits"]])
        assert set(entry) == {"id", "side", "bits"}


def said_lookup(codes: np.ndarray, bits: int) -> np.ndarray:
    """The sentence of the specification on `lookup`, word by word."""
    data = np.zeros(2048 * bits, np.uint8)
    for g in range(32 * bits):
        for j in range(64):
            for i in range(4 // bits):
                depth = g * (4 // bits) + i
                data[64 * g + j] |= codes[j, depth] << (bits * i)
                data[64 * g + j] |= codes[j + 64, depth] << (4 + bits * i)
    return data


def said_dot(codes: np.ndarray, bits: int) -> np.ndarray:
    """The sentence of the specification on `dot`, word by word."""
    data = np.zeros(2048 * bits, np.uint8)
    for block in range(4 * bits):
        for lanes in range(8):
            for lane in range(16):
                for k in range(4):
                    for i in range(8 // bits):
                        code = codes[16 * lanes + lane, block * (32 // bits) + 4 * i + k]
                        data[64 * (4 * bits * lanes + block) + 4 * lane + k] |= code << (bits * i)
    return data


@pytest.mark.parametrize("has_offset", [True, False])
@pytest.mark.parametrize(("bits", "layout"), [*itertools.product((1, 2, 4), ("lookup", "dot")), (8, "dot")])
def test_both_layouts_are_as_said(bits: int, layout: str, has_offset: bool) -> None:
    code = Code(CODES[bits].levels, 1.0, layout, has_offset)
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 2**bits, (128, 128)).astype(np.uint8)
    half = rng.standard_normal((2, 128)).astype(np.float16)
    half[1] *= has_offset
    data = to_bytes(Tiles(code, codes, half[0], half[1]))
    assert len(data) == code.tile_bytes
    said = said_lookup(codes, bits) if layout == "lookup" else said_dot(codes, bits)
    np.testing.assert_array_equal(data[: 2048 * bits], said)
    assert data[2048 * bits :].tobytes() == half[: 1 + has_offset].astype("<f2").tobytes()
    back = from_bytes(data, code)
    np.testing.assert_array_equal(back.codes, codes)
    np.testing.assert_array_equal(back.scale, half[0])
    np.testing.assert_array_equal(back.offset, half[1])


def test_worked_example_of_the_specification() -> None:
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8").split("## A worked example")[1]
    values, codes, data = (re.search(rf"```{name}\n(.*?)```", text, re.S)[1] for name in ("values", "codes", "bytes"))
    source = np.zeros((1, 1, 128, 128), np.float16)
    source[0, 0, 3] = np.array([int(word, 16) for word in values.split()], np.uint16).view(np.float16)
    kind = Kind("k", CODES[2])
    tile = pack(source, kind)

    expected = np.zeros(kind.tile_bytes, np.uint8)
    expected[:512].reshape(8, 64)[:, 12:16] = np.reshape([int(word, 16) for word in data.split()], (8, 4))
    for at, first, second in re.findall(r"byte (\d+) \(`(..) (..)`\)", text):
        expected[int(at) : int(at) + 2] = int(first, 16), int(second, 16)
    np.testing.assert_array_equal(tile[0, 0, 0], expected)

    lane = unpack(tile, kind, 1, 1)
    assert "".join(map(str, lane.codes[0, 0, 0, 3])) == "".join(codes.split())
    told = dict(re.findall(r"`(offset|scale)` = `0x....` \| (\S+) \|", text))
    assert float(told["scale"]) == lane.scale[0, 0, 0, 3]
    assert float(told["offset"]) == lane.offset[0, 0, 0, 3]
    assert f"= {lane.values()[0, 0, 0, 3, 5]!r}.".replace("np.float64(", "").replace(")", "") in text


@pytest.mark.parametrize("name", ["qlutattn_k3_128x128", "k4", "q8_0", "qlutattn_k4_128x128x"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a QLUTATTN type"):
        Kind.of(name)
