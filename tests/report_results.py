"""Stored results of every kind, as the commands leave them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qlutattn_patch.building import results
from qlutattn_patch.building.origin import Origin
from qlutattn_patch.building.stamp import Stamp, built_now
from qlutattn_patch.workspace import Workspace

GCC = {"C++ compiler": "/usr/bin/c++ (gcc 12)", "CXXFLAGS": "", "CMAKE_BUILD_TYPE": "Release"}
CACHES = ("f16", "q8_0", "K8V8", "K4V4", "K4V2", "K2V2", "K1V1", "K4V4+w512")


def put_build(workspace: Workspace, preset: str = "native") -> Path:
    """A build folder whose programs are files."""
    folder = workspace.build_dir(preset)
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    for name in results.TARGETS.values():
        (folder / "bin" / name).write_bytes(b"program")
    targets = {name: built_now(folder / "bin", name, GCC, Origin(tree="t" * 40)) for name in results.TARGETS.values()}
    Stamp(GCC, {name: built for name, built in targets.items() if built}).write(folder)
    return folder


def align_result(failed: bool = False) -> dict[str, Any]:
    kinds = [f"{side}{bits}" for side in "kv" for bits in (1, 2, 4, 8)]
    cases = [
        {
            "id": f"{k}-{v}-{number}",
            "type_k": f"qlutattn_{k}_128x128",
            "type_v": f"qlutattn_{v}_128x128",
            "n_kv_packed": 256,
            "kernel": "dot-avx512-vnni+lut-avx512-vnni",
            "nmse_codes": 1e-4,
            "nmse_f32": 0.01,
            "worst_ratio": 0.1 * number + 0.3,
            "ok": True,
        }
        for k in kinds[:4]
        for v in kinds[4:]
        for number in range(4)
    ]
    if failed:
        cases[0] |= {"ok": False, "worst_ratio": 2.5, "faults": ["<b>too far</b>"]}
    counts = {"passed": len(cases) - failed, "failed": int(failed)}
    head = {"upstream": None, "series": None, "build": None, "preset": "native", "isa": ["AVX2"]}
    return {"schema": 1, "ok": not failed, **head, **counts, "faults": [], "cases": cases}


def bench_result(caches: tuple[str, ...] = CACHES, spread: float = 0.02) -> dict[str, Any]:
    rows = [
        {
            "id": f"{work}-{n_kv}-t{threads}-{cache}",
            "work": work,
            "n_q": 1 if work == "decode" else 512,
            "n_kv": n_kv,
            "threads": threads,
            "cache": cache,
            "type_k": None if cache in ("f16", "q8_0") else "qlutattn_k4_128x128",
            "type_v": None if cache in ("f16", "q8_0") else "qlutattn_v4_128x128",
            "window": 0,
            "kernel": "upstream" if cache in ("f16", "q8_0") else "dot-avx512-vnni",
            "bytes": 1,
            "rounds": 5,
            "median_ms": n_kv / 1000 / (at + 1),
            "min_ms": n_kv / 1000 / (at + 1),
            "spread": spread,
            "floor_ms": None,
            "peak_ms": None,
            "vs_f16": float(at + 1),
            "vs_floor": None,
            "vs_peak": None,
        }
        for work in ("decode", "prefill")
        for threads in (1, 2)
        for n_kv in (512, 8192)
        for at, cache in enumerate(caches)
    ]
    head = {"cpu": "A CPU", "isa": ["AVX2"], "build": None, "preset": "native", "caches": "warm", "layout": "heads"}
    rates = {"read_gbps": 10.0, "memcpy_gbps": 5.0}
    bandwidth = [{"threads": 1, **rates}]
    return {
        "schema": 1,
        "arguments": ["--work", "decode"],
        **head,
        **rates,
        "bandwidth": bandwidth,
        "peak": [],
        "rows": rows,
    }


def sampling_result(different: int = 0) -> dict[str, Any]:
    side = {"min_us": 1.0, "spread": 0.01}
    rows = [
        {
            "id": f"{chain}-{vocab}-{logits}",
            "chain": chain,
            "vocab": vocab,
            "logits": logits,
            "kept": 40,
            "tokens": 80,
            "different": different,
            "stock": {"median_us": 100.0 * at, **side},
            "select": {"median_us": 10.0, **side},
            "speedup": 10.0 * at,
        }
        for at, chain in enumerate(("default", "top-p"), 1)
        for vocab in (32000, 151936)
        for logits in ("gauss", "peaked")
    ]
    head = {"work": "sampling", "cpu": "A CPU", "isa": ["AVX2"], "build": None, "preset": "native", "kernel": "avx2"}
    return {"schema": 1, "arguments": ["--work", "sampling"], **head, "rows": rows}


def eval_result(model: str = "M.gguf") -> dict[str, Any]:
    rows = [
        {
            "cache": name,
            "type_k": name if bits > 8 else f"qlutattn_{name[:2].lower()}_128x128",
            "type_v": name if bits > 8 else f"qlutattn_{name[2:4].lower()}_128x128",
            "window": 256,
            "sink": 128,
            "ubatch": 128,
            "bpw": bits,
            "cache_bytes": 4 << 20,
            "bits_in_cache": 9.5,
            "ppl": 17.0,
            "ppl_err": 0.1,
            "dppl": 0.01,
            "dppl_err": 0.002,
            "kld_mean": divergence,
            "kld_mean_err": divergence / 50,
            "kld_median": divergence / 3,
            "kld_p999": divergence * 40,
            "same_top": 98.9,
            "same_top_err": 0.1,
        }
        for name, bits, divergence in (("q8_0", 8.5, 4e-5), ("K4V4+w128+s128", 4.25, 4e-4), ("K2V2", 2.25, 4.4e-4))
    ]
    words = ["--model", model, "--text", "T.txt"]
    return {
        "schema": 1,
        "arguments": words,
        "model": model,
        "text": "T.txt",
        "n_ctx": 1024,
        "chunks": 8,
        "tokens": 4088,
        "rows": rows,
    }
