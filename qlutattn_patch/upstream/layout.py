"""The paths in a llama.cpp tree, and the files that identify one."""

from __future__ import annotations

from collections.abc import Collection

from qlutattn_patch.system.errors import ExpectedError

GGML_H = "ggml/include/ggml.h"
GGML_C = "ggml/src/ggml.c"
GGML_CPU_C = "ggml/src/ggml-cpu/ggml-cpu.c"
LLAMA_H = "include/llama.h"
RPC_H = "ggml/include/ggml-rpc.h"
CONSTANTS_PY = "gguf-py/gguf/constants.py"
TRAITS_INC = "ggml/src/ggml-qlutattn-traits.inc"
LLAMA_QUANT_CPP = "src/llama-quant.cpp"
LANDMARKS = ("CMakeLists.txt", GGML_H, GGML_C)
# The files that are read to check what patches change; only the landmarks must be there.
CHECKED = (GGML_H, GGML_C, GGML_CPU_C, RPC_H, LLAMA_H, CONSTANTS_PY, LLAMA_QUANT_CPP)


def check_is_llama_cpp(files: Collection[str], what: str) -> None:
    """Refuse a tree that is not llama.cpp."""
    for landmark in LANDMARKS:
        if landmark not in files:
            raise ExpectedError(f"{what} is not llama.cpp: it has no {landmark}.", "name a checkout of llama.cpp")
