"""docs/environment.md names every variable that the package and the patches read."""

from __future__ import annotations

import re

from helpers import ROOT

PAGE = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", PAGE))
# asked by name in Python, and in the C++ of the patches
PYTHON = re.compile(r"environ(?:\.get\(|\[)\"([A-Z0-9_]+)\"")
NATIVE = re.compile(r"getenv\(\"([A-Z0-9_]+)\"\)|\"(LLAMA_ARG_[A-Z0-9_]+)\"")


def test_every_variable_is_on_the_page() -> None:
    python = (path.read_text(encoding="utf-8") for path in (ROOT / "qlutattn_patch").rglob("*.py"))
    native = (path.read_text(encoding="utf-8") for path in (ROOT / "templates").rglob("*") if path.is_file())
    asked = {name for text in python for name in PYTHON.findall(text) if name != "PATH"}
    asked |= {name for text in native for found in NATIVE.findall(text) for name in found if name}
    assert {"QLUTATTN_CACHE", "LLAMA_ARG_KV_SINK", "GGML_PROFILE", "NO_COLOR"} <= asked
    assert asked - NAMED == set()
