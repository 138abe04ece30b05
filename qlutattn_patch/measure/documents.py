"""bench_attn's results file, the sums in a trace, and the JSON documents of bench, eval and profile."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from qlutattn_patch.building.origin import Provenance
from qlutattn_patch.system.records import Number, Record, Versioned, doc

_Isa = Annotated[list[str], doc("the instruction sets that ggml was built with")]
_Caches = Annotated[Literal["warm", "cold"], doc("the state of the processor's caches")]
_Layout = Annotated[str, doc("memory layout of stock types: heads or tokens")]
_Side = Annotated[str | None, doc("null if this side is not packed")]
_Positive = Annotated[int, Meta(gt=0)] | Annotated[float, Meta(gt=0)]
_Error = Annotated[float, doc("the standard error")]


class Bandwidth(Record, frozen=True):
    """Memory bandwidth with a number of threads."""

    threads: Annotated[int, doc("threads")]
    read_gbps: Number
    memcpy_gbps: Number


class Peak(Record, frozen=True):
    """Multiply-adds per second with a number of threads, in 10⁹."""

    threads: Annotated[int, doc("threads")]
    int8_gmacs: Annotated[Number, doc("of int8; 0 without vector code for them")]
    f32_gmacs: Annotated[Number, doc("of f32")]


class TimedRow(Record, frozen=True, kw_only=True):
    """A row as bench_attn reports it."""

    id: Annotated[str, doc("such as decode-8192-t2-K4V4, for --filter")]
    work: Literal["decode", "prefill", "pack"]
    n_q: Annotated[int, doc("queries")]
    n_kv: Annotated[int, doc("keys")]
    threads: Annotated[int, doc("threads")]
    cache: Annotated[str, doc("in the notation of --types")]
    type_k: _Side
    type_v: _Side
    window: Annotated[int, doc("newest tokens in f16")]
    kernel: Annotated[str, doc("the kernels that ran")]
    bytes: Annotated[int, doc("bytes read")]
    rounds: Annotated[int, doc("number of timed runs")]
    median_ms: Annotated[_Positive, doc("the median time")]
    min_ms: Annotated[Number, doc("the shortest")]
    spread: Annotated[Number | None, doc("interquartile range of the times over the median")]
    floor_ms: Annotated[Number | None, doc("the time to read the same bytes")]
    peak_ms: Annotated[Number | None, doc("the time of the row's multiply-adds alone, at the machine's peak")]
    instructions: Annotated[int | UnsetType, doc("of one run, with --instructions")] = UNSET

    @property
    def title(self) -> str:
        """The work, with the number of queries where decode has several."""
        return f"{self.work} q{self.n_q}" if self.work == "decode" and self.n_q > 1 else self.work


class BenchRow(TimedRow, frozen=True, kw_only=True):
    """A row with its ratios."""

    vs_f16: Annotated[Number | None, doc("the median of f16 in the same group over this one")]
    vs_floor: Annotated[Number | None, doc("floor over median")]
    vs_peak: Annotated[Number | None, doc("the time at peak over the median")]


class OwnResults(Versioned, frozen=True, kw_only=True):
    """bench_attn's results file."""

    caches: _Caches
    layout: _Layout
    isa: _Isa
    build: Provenance | None = None
    bandwidth: list[Bandwidth]
    peak: list[Peak]
    rows: list[TimedRow]


class BenchDocument(Versioned, frozen=True):
    """Times and ratios of attention and packing."""

    cpu: Annotated[str, doc("the processor's name")]
    isa: _Isa
    build: Provenance | None
    preset: Annotated[str, doc("the preset that was run")]
    caches: _Caches
    layout: _Layout
    read_gbps: Annotated[Number, doc("read bandwidth with most threads")]
    memcpy_gbps: Annotated[Number, doc("copied bytes per second with most threads, in 10⁹")]
    bandwidth: Annotated[list[Bandwidth], doc("the same for each number of threads")]
    peak: Annotated[list[Peak], doc("multiply-adds per second for each number of threads")]
    rows: list[BenchRow]


class SamplingSide(Record, frozen=True):
    """The times of one side of a row, per token."""

    median_us: Annotated[_Positive, doc("the median time")]
    min_us: Annotated[Number, doc("the shortest")]
    spread: Annotated[Number | None, doc("interquartile range of the times over the median")]


class TimedSampling(Record, frozen=True, kw_only=True):
    """A row as bench_sampling reports it."""

    id: Annotated[str, doc("such as default-151936-gauss, for --filter")]
    chain: Annotated[str, doc("greedy, top-k, default, top-p or min-p")]
    vocab: Annotated[int, doc("tokens of the vocabulary")]
    logits: Annotated[str, doc("gauss, peaked, flat or recorded")]
    kept: Annotated[int, doc("candidates that the chain left of the last token")]
    tokens: Annotated[int, doc("tokens that both sides drew")]
    different: Annotated[int, doc("of these, those that differ")]
    stock: Annotated[SamplingSide, doc("llama.cpp's own code")]
    select: Annotated[SamplingSide, doc("the same from the row of logits")]


class SamplingRow(TimedSampling, frozen=True, kw_only=True):
    """A row with its ratio."""

    speedup: Annotated[Number, doc("the median of stock over that of select")]


class OwnSampling(Versioned, frozen=True, kw_only=True):
    """bench_sampling's results file."""

    kernel: str
    isa: _Isa
    build: Provenance | None = None
    rows: list[TimedSampling]


class SamplingDocument(Versioned, frozen=True):
    """Times of drawing a token, beside llama.cpp's own code."""

    work: Annotated[Literal["sampling"], doc("tells this document from that of other work")]
    cpu: Annotated[str, doc("the processor's name")]
    isa: _Isa
    build: Provenance | None
    preset: Annotated[str, doc("the preset that was run")]
    kernel: Annotated[str, doc("the kernels that selected")]
    rows: list[SamplingRow]


class EvalRow(Record, frozen=True):
    """How far a model's output with a cache diverges from f16."""

    cache: Annotated[str, doc("in the notation of --types")]
    type_k: str
    type_v: str
    window: Annotated[int | None, doc("newest tokens in f16; null: not a packed cache")]
    sink: Annotated[int | None, doc("first tokens in f16")]
    ubatch: Annotated[int, doc("tokens per micro-batch")]
    bpw: Annotated[float, doc("bits per value, of the codes")]
    cache_bytes: Annotated[int | None, doc("the size of the whole cache")]
    bits_in_cache: Annotated[float | None, doc("bits per value, f16 parts included")]
    ppl: Annotated[float, doc("perplexity")]
    ppl_err: _Error
    dppl: Annotated[float, doc("its difference from f16's")]
    dppl_err: _Error
    kld_mean: Annotated[float, doc("mean divergence from f16, nats")]
    kld_mean_err: _Error
    kld_median: Annotated[float, doc("its median")]
    kld_p999: Annotated[float, doc("its 99.9 % quantile")]
    same_top: Annotated[float, doc("percent of tokens with the same most likely successor")]
    same_top_err: _Error


class EvalDocument(Versioned, frozen=True):
    """How far a model's output diverges from that with an f16 cache."""

    model: Annotated[str, doc("the file")]
    text: Annotated[str, doc("the file")]
    n_ctx: Annotated[int, doc("tokens per context")]
    chunks: Annotated[int, doc("contexts read")]
    tokens: Annotated[int, doc("tokens judged")]
    rows: list[EvalRow]


class TracedRow(Record, frozen=True, kw_only=True):
    """An operation or a layer, as the profiler sums it up."""

    name: Annotated[str, doc("the operation with its types, or the number of the layer")]
    calls: Annotated[int, doc("nodes computed")]
    ms: Annotated[Number, doc("from a node's begin until all threads have passed the barrier behind it")]
    busy_ms: Annotated[Number, doc("of that, until the first thread has ended the node")]
    bytes: Annotated[int, doc("bytes that the nodes read and write")]
    flops: Annotated[int, doc("operations of matrix products and attention")]
    wait: Annotated[Number, doc("fraction of the time of all threads that they wait at the barrier")]


class Graphs(Record, frozen=True, kw_only=True):
    """The graphs of a kind."""

    kind: Annotated[
        Literal["decode", "small batch", "prefill", "other"],
        doc("decode: one token; small batch: up to 32; prefill: more; other: neither matrix product nor attention"),
    ]
    graphs: Annotated[int, doc("graphs computed")]
    tokens: Annotated[int, doc("tokens in them")]
    threads: Annotated[int, doc("threads of the graph with most")]
    ms: Annotated[Number, doc("the time of the graphs")]


class TracedSection(Graphs, frozen=True, kw_only=True):
    """The graphs of a kind, as the profiler sums them up."""

    operations: list[TracedRow]
    layers: list[TracedRow]


class TracedSums(Versioned, frozen=True, kw_only=True):
    """The sums that stand beside the events in a trace."""

    clock: str
    wall_ms: Number
    events: int
    dropped: int
    sections: list[TracedSection]


class Trace(Struct, frozen=True):
    """A trace, of which only the sums are read."""

    profile: TracedSums


class ProfileRow(TracedRow, frozen=True, kw_only=True):
    """An operation or a layer with its rates."""

    share: Annotated[Number, doc("of the time of the graphs")]
    gbps: Annotated[Number | None, doc("10⁹ bytes per second; null: no bytes are counted")]
    gflops: Annotated[Number | None, doc("10⁹ operations per second; null: none are counted")]


class ProfileSection(Graphs, frozen=True, kw_only=True):
    """The graphs of a kind, with what of their time is in nodes and waits."""

    covered: Annotated[Number, doc("fraction of the time of the graphs that is in nodes and waits")]
    operations: list[ProfileRow]
    layers: list[ProfileRow]


class ProfileDocument(Versioned, frozen=True):
    """Where the time of a tool's graphs goes."""

    argv: Annotated[list[str], doc("the tool and its arguments")]
    status: Annotated[int, doc("its exit status; negative: the signal that ended it")]
    trace: Annotated[str, doc("the trace in the Trace Event Format")]
    clock: Annotated[str, doc("the clock of the trace")]
    wall_ms: Annotated[Number, doc("from the begin of the first graph to the end of the last")]
    events: Annotated[int, doc("nodes that threads have computed")]
    dropped: Annotated[int, doc("of these, those that are in the sums only")]
    sections: list[ProfileSection]
