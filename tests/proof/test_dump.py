"""The check of a dump of align_attn: tiles, unpacked values, results, and what makes no sense."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from align_helpers import PAIRS, dump_case, write_dump

from qlutattn_patch.proof.dump import check, read
from qlutattn_patch.proof.reference.attention import Packed, Problem, Segment, attend
from qlutattn_patch.proof.reference.quantise import unpack
from qlutattn_patch.proof.reference.tile import Kind
from qlutattn_patch.system.errors import ExpectedError


def verdicts(folder: Path, *cases: dict[str, Any]) -> list[Any]:
    path = folder / "dümp.gguf"
    write_dump(path, list(cases))
    return list(check(path))


def test_a_right_dump_passes(tmp_path: Path) -> None:
    cases = [dump_case(k, v) for k, v in PAIRS]
    cases += [dump_case(head_dim=d, tiles=2, extras=True, seed=d) for d in (64, 128, 256)]
    cases += [dump_case(v=1, f16="k", head_dim=d, tiles=2, seed=d) for d in (64, 128, 256)]
    cases += [
        dump_case(tiles=3, extras=True, shifts=(2, 0, 1), seed=4),
        dump_case(f16="k", tiles=2, shifts=(1, 1), seed=5),
    ]
    cases += [dump_case(v=1, f16="v", extras=True, seed=3)]
    cases += [dump_case(head_dim=k, head_dim_v=v, tiles=2, seed=k) for k, v in ((192, 192), (320, 64), (576, 512))]
    cases += [dump_case(tiles=0, seed=1), dump_case(window=0, seed=2)]
    found = verdicts(tmp_path, *cases)
    assert [verdict.id for verdict in found] == [case["id"] for case in cases]
    assert [verdict.wrong for verdict in found] == [[]] * len(cases)
    assert all(0 < verdict.ratio < 0.1 for verdict in found)
    assert {name for verdict in found for name in verdict.tiles} == {
        f"qlutattn_{s}{b}_128x128" for s, b in itertools.product("kv", (1, 2, 4, 8))
    }
    assert found[-2].tiles == {}
    assert np.isnan(cases[len(PAIRS) + 1]["out"]).any()


def end_of_codes(name: str) -> int:
    return Kind.of(name).code_bytes


PARTS = [
    (what, side, pair)
    for what, side, pair in itertools.product(("code", "scale", "offset"), "kv", PAIRS)
    if what != "offset" or pair["kv".index(side)] < 8  # which have no offsets
]


@pytest.mark.parametrize(("what", "side", "pair"), PARTS)
def test_one_changed_bit_of_a_tile_is_seen(what: str, side: str, pair: tuple[int, int], tmp_path: Path) -> None:
    case = dump_case(*pair)
    data = case[f"{side}p"].view(np.uint8)
    codes = end_of_codes(case[f"type_{side}"])
    at = {"code": 777, "scale": codes + 2 * 9, "offset": codes + 256 + 2 * 9}[what]
    data[at] ^= 1
    (wrong, *more) = verdicts(tmp_path, case)[0].wrong
    assert wrong.startswith(
        f"{case[f'type_{side}']}: 1 bytes differ from numpy's, the first at batch 0, column 0, tile 0"
    )
    assert f"byte {at} " in wrong
    assert f"the {what} of lane" in wrong
    assert ("lane 9 " in wrong) == (what != "code")
    assert not more or "results are off" in more[0]


def test_the_bit_of_a_tile_further_on_is_named(tmp_path: Path) -> None:
    case = dump_case(tiles=2)
    tile = Kind.of(case["type_v"]).tile_bytes
    case["vp"].view(np.uint8)[3 * tile + end_of_codes(case["type_v"]) + 2 * 127 + 1] ^= 0x80
    assert "batch 0, column 1, tile 1" in verdicts(tmp_path, case)[0].wrong[0]
    assert "the scale of lane 127" in verdicts(tmp_path, case)[0].wrong[0]


@pytest.mark.parametrize("side", "kv")
def test_one_wrong_unpacked_value_is_seen(side: str, tmp_path: Path) -> None:
    case = dump_case(tiles=2)
    values = case[f"{side}u"]
    values[0, 1, 130, 7] = np.nextafter(values[0, 1, 130, 7], values.dtype.type(np.inf))
    (wrong,) = verdicts(tmp_path, case)[0].wrong
    assert "1 unpacked values differ from numpy's, the first at batch 0, column 1, token 130, channel 7" in wrong


@pytest.mark.parametrize("value", [np.nan, np.inf, None])
def test_one_wrong_result_is_seen(value: float | None, tmp_path: Path) -> None:
    case = dump_case()
    at = (0, 2, 3, 77)
    case["out"][at] = case["out"][at] + 1 if value is None else value
    verdict = verdicts(tmp_path, case)[0]
    assert len(verdict.wrong) == 1
    assert verdict.wrong[0].startswith("1 of 1536 results are off")
    assert "batch 0, query 2, head 3, channel 77" in verdict.wrong[0]


def test_a_number_where_nan_is_due_is_seen(tmp_path: Path) -> None:
    case = dump_case(extras=True)
    where = np.argwhere(np.isnan(case["out"]))[0]
    case["out"][tuple(where)] = 0.0
    assert f"channel {where[3]}" in verdicts(tmp_path, case)[0].wrong[0]


def test_a_row_that_sees_nothing_must_be_zeros(tmp_path: Path) -> None:
    case = dump_case(window=0)
    case["maskp"] = np.zeros((1, 1, 3, 128), np.float16)
    case["maskp"][:, :, 1] = -np.inf
    expected = case["out"].copy()
    expected[:, 1] = 0
    case["out"] = expected
    assert verdicts(tmp_path, case)[0].wrong == []
    case["out"] = expected.copy()
    case["out"][0, 1, 2, 5] = 1e-30
    assert "query 1, head 2, channel 5" in verdicts(tmp_path, case)[0].wrong[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kp": None}, "no tensor 'kp'"),
        ({"out": None}, "no tensor 'out'"),
        ({"vu": None}, "no tensor 'vu'"),
        ({"ku": np.zeros((1, 2, 128, 64), np.float32)}, "ku has the shape"),
        ({"v": None}, "no tensor 'v'"),
        ({"vp": np.zeros(100, np.int8)}, "vp has 100 bytes"),
        ({"type_k": "qlutattn_v2_128x128"}, "is not a type for K"),
        ({"type_v": "q8_0"}, "not a QLUTATTN type"),
        ({"kernel_k": "avx"}, "kernel 'avx'"),
        ({"head_dim": 64}, "q has the shape"),
        ({"head_dim_v": 96}, "q has the shape"),
        ({"out": np.zeros((1, 3, 4, 64), np.float32)}, "out has the shape"),
        ({"sinks": np.zeros(3, np.float32)}, "3 sinks"),
        ({"maskp": np.zeros((1, 1, 2, 128), np.float16)}, "maskp has the shape"),
        ({"ksrc": np.zeros((1, 2, 100, 128), np.float16)}, "no whole tiles"),
        ({"q_shifted": np.zeros((1, 4, 3, 64), np.float32)}, "q_shifted has the shape"),
        ({"tile_shift": np.zeros((1, 1), np.int32)}, "no tensor 'q_shifted'"),
        (
            {"q_shifted": np.zeros((2, 4, 3, 128), np.float32), "tile_shift": np.array([[3]], np.int32)},
            "the sets 3 to 3 of 3",
        ),
    ],
)
def test_a_case_that_makes_no_sense_is_a_failure(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    case = {key: value for key, value in {**dump_case(), **change}.items() if value is not None}
    (wrong,) = verdicts(tmp_path, case, dump_case(1, 1))[0].wrong
    assert said in wrong


def latent_case() -> dict[str, Any]:
    """A case whose values are the first channels of its keys, all packed."""
    case = dump_case(4, 4, head_dim=192, window=0, tiles=2)
    tiles = unpack(case["kp"].view(np.uint8), Kind.of(case["type_k"]), 1, 3)
    segment = Segment.of_keys(Packed(tiles, "dot", 192), 128, 2)
    case.update(type_v=case["type_k"], kernel_v="dot", head_dim_v=128)
    case["out"] = attend(Problem(case["q"].astype(float), (segment,), case["scale"], 2)).astype(np.float32)
    del case["vp"], case["vu"], case["vsrc"]
    return case


def test_values_that_are_keys(tmp_path: Path) -> None:
    case = latent_case()
    assert verdicts(tmp_path, case)[0].wrong == []
    case["out"][0, 1, 2, 100] += 0.1
    assert "query 1, head 2, channel 100" in verdicts(tmp_path, case)[0].wrong[0]


def test_a_tile_with_other_queries_than_named_is_seen(tmp_path: Path) -> None:
    case = dump_case(tiles=2, shifts=(1, 2))
    case["tile_shift"] = case["tile_shift"][:, ::-1]
    (wrong,) = verdicts(tmp_path, case)[0].wrong
    assert "results are off" in wrong


def test_files_that_are_no_dump_are_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ExpectedError, match="not a readable GGUF file"):
        list(read(path))
    write_dump(path, [dump_case()])
    whole = path.read_bytes()
    for length in (0, 20, 300, 1500, len(whole) - 10000):
        path.write_bytes(whole[:length])
        with pytest.raises(ExpectedError):
            list(read(path))
    writer = gguf.GGUFWriter(path, "x")
    writer.add_uint32("qlutattn.dump.version", 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ExpectedError, match="version 1;"):
        list(read(path))
    case = dump_case()
    del case["scale"]
    write_dump(path, [case])
    with pytest.raises(ExpectedError, match=r"lacks the key 'case\.0\.scale'"):
        list(read(path))
