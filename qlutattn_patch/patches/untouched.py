"""What the patches must leave as upstream has it: its quantisers, the rows of its types, its file types."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from qlutattn_patch.patches.tables import constants, file_types, rpc_version
from qlutattn_patch.upstream.layout import CONSTANTS_PY, GGML_C, GGML_CPU_C, GGML_H, LLAMA_H, RPC_H

# Files, or all that begins so, whose code makes or reads the bytes of upstream's types.
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
_TABLE = r"\b{}\[GGML_TYPE_COUNT\]\s*=\s*\{{\n(.*?)\n\}};"
_ROW = re.compile(r"^    \[(\w+)\]\s*=\s*\{.*?^    \},", re.DOTALL | re.MULTILINE)
_FUNCTION = r"^size_t ggml_quantize_chunk\(.*?^\}"
_SIZE = re.compile(r"^    GGMLQuantizationType\.(\w+):[^\n]*", re.MULTILINE)


def changes(before: Mapping[str, str], after: Mapping[str, str], changed: Iterable[str]) -> list[str]:
    """What of upstream's own is not as it was; `changed` are the upstream files that the patches touch."""
    found = [f"{file} makes upstream's own types: no patch may touch it" for file in changed if _quantises(file)]
    now = digests(after)
    for name, digest in digests(before).items():
        if now.get(name) != digest:
            found.append(
                f"{name} is {'gone' if name not in now else 'changed'}: upstream's types must stay as they are"
            )
    return found + _file_type_changes(before, after) + _protocol_changes(before, after)


def digests(texts: Mapping[str, str]) -> dict[str, str]:
    """A digest of everything in shared files that upstream's own types are made of, by what it is."""
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


def _quantises(file: str) -> bool:
    return file.startswith(QUANTISERS)


def _file_type_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """A packed cache is no file: we have no type of file, and so none can collide with upstream's next."""
    found = []
    for file, what in ((GGML_H, "ggml_ftype"), (LLAMA_H, "llama_ftype"), (CONSTANTS_PY, "LlamaFileType")):
        was, is_now = file_types(before, what), file_types(after, what)
        found += [
            f"{file}: {what} has {name} = {is_now[name]} with the patches; packed caches have no type of file"
            for name in is_now
            if was.get(name) != is_now[name]
        ]
        found += [f"{file}: {what} has lost {name}" for name in was if name not in is_now]
    return found


def _protocol_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Other ops need another version of ggml-rpc's protocol: a server numbers them as it was built."""
    was, is_now = (constants(texts.get(GGML_H, ""), "ggml_op") for texts in (before, after))
    version = rpc_version(after.get(RPC_H, ""))
    if was == is_now or version is None or version != rpc_version(before.get(RPC_H, "")):
        return []
    said = ".".join(map(str, version))
    return [f"{RPC_H}: the protocol is {said} with and without the patches, though the ops of {GGML_H} differ"]
