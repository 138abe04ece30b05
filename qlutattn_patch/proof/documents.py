"""align_attn's results file, and the JSON documents of align and of `eval --task outliers`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, UnsetType, field

from qlutattn_patch.building.origin import Provenance
from qlutattn_patch.system.records import Count, Digest, Number, Record, Versioned, doc

_Measure = Number | None | UnsetType
_Size = int | UnsetType


class Numpy(Record, frozen=True):
    """The numpy checks of a dumped case."""

    tiles: Annotated[dict[str, int], doc("number of compared tiles by type")]
    error_over_tolerance: Annotated[Number | None, doc("worst_ratio as computed by numpy")]
    worst: Annotated[Any, doc("the element with that ratio")]
    wrong: Annotated[list[str], doc("numpy's findings")]


class Case(Record, frozen=True, kw_only=True):
    """A case of align_attn; older builds omit keys."""

    id: Annotated[str, doc("the name, for --filter")]
    type_k: Annotated[str, doc("the type of keys")]
    type_v: Annotated[str, doc("the type of values")]
    n_q: Annotated[_Size, doc("queries")] = UNSET
    n_kv_packed: Annotated[_Size, doc("packed keys")] = UNSET
    n_kv_f16: Annotated[_Size, doc("keys in f16")] = UNSET
    heads_per_group: Annotated[_Size, doc("query heads per kv head")] = UNSET
    head_dim: Annotated[_Size, doc("the head size")] = UNSET
    head_dim_v: Annotated[_Size, doc("the head size of values")] = UNSET
    kernel: Annotated[str | UnsetType, doc("the kernels that ran")] = UNSET
    nmse_codes: Annotated[_Measure, doc("squared error against attention on the decoded values, normalised")] = UNSET
    nmse_f32: Annotated[_Measure, doc("the same against attention on the original values")] = UNSET
    nmse_f32_bound: Annotated[_Measure, doc("the upper bound of nmse_f32")] = UNSET
    nmse_upstream: Annotated[_Measure, doc("the same of upstream's own attention")] = UNSET
    nmse_torch: Annotated[_Measure, doc("the same against libtorch, where it was built in")] = UNSET
    max_abs_err: Annotated[_Measure, doc("the largest error")] = UNSET
    tolerance: Annotated[_Measure, doc("the tolerance at the largest error")] = UNSET
    worst_ratio: Annotated[_Measure, doc("the largest error in units of the tolerance, element by element")] = UNSET
    seconds: Annotated[Number | UnsetType, doc("the time that align_attn took")] = UNSET
    ok: Annotated[bool, doc("whether align_attn and numpy passed it")]
    faults: Annotated[list[str] | UnsetType, doc("align_attn's findings")] = UNSET
    numpy: Numpy | UnsetType = UNSET


class OwnResults(Versioned, frozen=True):
    """align_attn's results file."""

    ok: bool
    cases: list[Case]
    isa: list[str] = field(default_factory=list)
    build: Provenance | None = None
    passed: int = 0
    failed: int = 0


class AlignDocument(Versioned, frozen=True):
    """align_attn's results, with numpy's."""

    ok: bool
    upstream: Annotated[str | None, doc("the commit of llama.cpp")]
    series: Annotated[Digest | None, doc("the sha256 of the patch set")]
    build: Provenance | None
    preset: Annotated[str, doc("the preset that was run")]
    isa: Annotated[list[str], doc("the instruction sets that ggml was built with")]
    passed: Annotated[Count, doc("cases")]
    failed: Annotated[Count, doc("cases")]
    faults: Annotated[list[str], doc("failures that belong to no single case")]
    cases: list[Case]


class OutlierRow(Record, frozen=True):
    """The error of a cache on one kind of data."""

    data: Annotated[str, doc("the kind of data")]
    cache: Annotated[str, doc("in the notation of --types with this task")]
    bpw: Annotated[float, doc("bits per value, of keys and values together")]
    error: Annotated[float, doc("squared error of attention, normalised; the mean of all draws")]
    error_err: Annotated[float, doc("the standard error of that mean")]


class OutliersDocument(Versioned, frozen=True, kw_only=True):
    """What outliers in keys and values cost each cache."""

    task: Annotated[Literal["outliers"], doc("tells this document from that of other tasks")] = "outliers"
    draws: Annotated[Count, doc("random draws of each kind of data")]
    rows: list[OutlierRow]
