"""Check that the patches leave upstream's quantisers, type tables and file types unchanged."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from qlutattn_patch.patches.tables import constants, file_types, rpc_version
from qlutattn_patch.upstream.layout import CONSTANTS_PY, GGML_C, GGML_CPU_C, GGML_H, LLAMA_H, LLAMA_QUANT_CPP, RPC_H

# Files, or prefixes of files, that read or write the bytes of upstream's types.
QUANTISERS = (
    "ggml/src/ggml-common.h",
    "ggml/src/ggml-impl.h",
    "ggml/src/ggml-quants.",
    "ggml/src/ggml-cpu/amx/",
    "ggml/src/ggml-cpu/arch",
    "ggml/src/ggml-cpu/ggml-cpu-impl.h",
    "ggml/src/ggml-cpu/llamafile/",
    "ggml/src/ggml-cpu/quants.",
    "ggml/src/ggml-cpu/repack.",
    "ggml/src/ggml-cpu/simd-mappings.h",
    "ggml/src/ggml-cpu/traits.",
    "ggml/src/ggml-cpu/vec.",
    "gguf-py/gguf/quants.py",
    "src/llama-quant",
    "tools/quantize/",
)
# What may stand in llama-quant.cpp: the call that refuses packed types before anything is quantised.
_REFUSAL = re.compile(
    r'^(?:#include "llama-qlutattn-weights\.h"| *llama_qlutattn_refuse_quantize\(\*params\);)\n', re.MULTILINE
)
_TABLE = r"\b{}\[GGML_TYPE_COUNT\]\s*=\s*\{{\n(.*?)\n\}};"
_ROW = re.compile(r"^    \[(\w+)\]\s*=\s*\{.*?^    \},", re.DOTALL | re.MULTILINE)
_FUNCTION = r"^size_t ggml_quantize_chunk\(.*?^\}"
_SIZE = re.compile(r"^    GGMLQuantizationType\.(\w+):[^\n]*", re.MULTILINE)


def changes(before: Mapping[str, str], after: Mapping[str, str], changed: Iterable[str]) -> list[str]:
    """The changes of upstream's own types; `changed` are the upstream files that the patches touch."""
    found = [
        f"{file} implements upstream's types, so no patch may change it"
        for file in changed
        if file.startswith(QUANTISERS) and not (file == LLAMA_QUANT_CPP and _only_refuses(before, after))
    ]
    now = digests(after)
    for name, digest in digests(before).items():
        if now.get(name) != digest:
            found.append(f"{name} is {'gone' if name not in now else 'changed'}: upstream's types must not change")
    return found + _file_type_changes(before, after) + _protocol_changes(before, after)


def digests(texts: Mapping[str, str]) -> dict[str, str]:
    """A digest of each part of shared files that defines upstream's types, by its name."""
    found: dict[str, str] = {}
    for file, table in ((GGML_C, "type_traits"), (GGML_CPU_C, "type_traits_cpu")):
        body = re.search(_TABLE.format(table), texts.get(file, ""), re.DOTALL)
        for row in _ROW.finditer(f"{body[1]}\n" if body else ""):
            found[f"{file}: the row [{row[1]}] of {table}"] = _digest(row[0])
    if function := re.search(_FUNCTION, texts.get(GGML_C, ""), re.DOTALL | re.MULTILINE):
        found[f"{GGML_C}: ggml_quantize_chunk"] = _digest(function[0])
    for row in _SIZE.finditer(texts.get(CONSTANTS_PY, "")):
        found[f"{CONSTANTS_PY}: the size of {row[1]}"] = _digest(row[0])
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _only_refuses(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Whether llama-quant.cpp is upstream's, but for the call that refuses packed types."""
    return LLAMA_QUANT_CPP in before and _REFUSAL.sub("", after[LLAMA_QUANT_CPP]) == before[LLAMA_QUANT_CPP]


def _file_type_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Changes of the file types: QLUTATTN adds none, so none can collide with upstream's next."""
    found = []
    for file, what in ((GGML_H, "ggml_ftype"), (LLAMA_H, "llama_ftype"), (CONSTANTS_PY, "LlamaFileType")):
        was, is_now = file_types(before, what), file_types(after, what)
        found += [
            f"{file}: {what} has {name} = {is_now[name]} with the patches; packed caches have no file type"
            for name in is_now
            if was.get(name) != is_now[name]
        ]
        found += [f"{file}: {what} has lost {name}" for name in was if name not in is_now]
    return found


def _protocol_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """A change of the ops without a new version of ggml-rpc's protocol, which sends their numbers."""
    was, is_now = (constants(texts.get(GGML_H, ""), "ggml_op") for texts in (before, after))
    version = rpc_version(after.get(RPC_H, ""))
    if was == is_now or version is None or version != rpc_version(before.get(RPC_H, "")):
        return []
    shown = ".".join(map(str, version))
    return [f"{RPC_H}: the protocol is {shown} with and without the patches, though the ops of {GGML_H} differ"]
