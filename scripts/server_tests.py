"""Run upstream's own server tests (tools/server/tests) on a patched llama-server, with f16 and with packed caches.

The tests fetch their models; here a model with random weights replaces the language model. Tests that depend on the
real model's words fail with every type, so results are compared: tests that pass with f16 must pass with packed caches.
"""

from __future__ import annotations

import argparse
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from qlutattn_patch.building import cmake
from qlutattn_patch.system import console, process
from qlutattn_patch.system.errors import EXIT_CHECK_FAILED, EXIT_EXPECTED, EXIT_OK, ExpectedError
from qlutattn_patch.workspace import Workspace

HERE = Path(__file__).resolve().parent
PAIRS = {
    "f16": {},
    "K4V4": {"LLAMA_ARG_CACHE_TYPE_K": "qlutattn_k4_128x128", "LLAMA_ARG_CACHE_TYPE_V": "qlutattn_v4_128x128"},
    "K2V2": {"LLAMA_ARG_CACHE_TYPE_K": "qlutattn_k2_128x128", "LLAMA_ARG_CACHE_TYPE_V": "qlutattn_v2_128x128"},
}
# The tests' contexts have a few hundred tokens, some of which must be packed.
SMALL = {"LLAMA_ARG_KV_WINDOW": "32", "LLAMA_ARG_KV_SINK": "4"}


def make_environment(workspace: Workspace, requirements: Path) -> Path:
    """Create a virtual environment with the tests' requirements; returns its python."""
    folder = workspace.root / "build" / "server-tests"
    python = folder / "venv" / "bin" / "python"
    stamp = folder / "installed"
    wanted = requirements.read_text(encoding="utf-8")
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        steps: tuple[list[str | Path], ...] = (
            [sys.executable, "-m", "venv", python.parent.parent],
            [python, "-m", "pip", "install", "-q", "-r", requirements],
        )
        for argv in steps:
            if process.stream(argv) != 0:
                raise ExpectedError(
                    "The packages that upstream's server tests need are not installed.", f"see {requirements}"
                )
        stamp.write_text(wanted, encoding="utf-8")
    return python


def make_model(path: Path) -> Path:
    """Write the replacement model."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    import tiny_models  # type: ignore[import-not-found]

    tiny_models.write_model(path)
    return path


def run(python: Path, tests: Path, server: Path, model: Path, pair: str, report: Path) -> dict[str, str]:
    """Run the tests with a pair of types; returns the outcome of each."""
    env = {
        "PYTHONPATH": str(HERE),
        "QLUTATTN_TEST_MODEL": str(model),
        "LLAMA_SERVER_BIN_PATH": str(server),
        **(PAIRS[pair] and {**PAIRS[pair], **SMALL}),
    }
    options = ["-q", "-p", "server_tests_plugin", "-m", "not slow", f"--junit-xml={report}"]
    argv: list[str | Path] = [python, "-m", "pytest", *options, "unit"]
    process.stream(argv, cwd=tests, env=env)
    if not report.is_file():
        raise ExpectedError(f"Upstream's server tests did not run with {pair}.", "see pytest's output above")
    results = {}
    for case in ET.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').split('.')[-1]}.py::{case.get('name')}"
        kinds = {child.tag for child in case}
        results[name] = "skipped" if "skipped" in kinds else "failed" if kinds & {"failure", "error"} else "passed"
    return results


def main() -> int:
    """Run all pairs, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", type=Path, help="the llama-server to use (default: that of the preset native)")
    parser.add_argument("--pair", choices=PAIRS, action="append", help="only these types")
    arguments = parser.parse_args()
    try:
        workspace = Workspace.find()
        server = arguments.server or cmake.build(workspace, "native", ("llama-server",)).bin / "llama-server"
        tests = workspace.tree / "tools" / "server" / "tests"
        python = make_environment(workspace, tests / "requirements.txt")
        folder = workspace.root / "build" / "server-tests"
        model = make_model(folder / "stand-in.gguf")
        results = {
            pair: run(python, tests, server.resolve(), model, pair, folder / f"{pair}.xml")
            for pair in arguments.pair or PAIRS
        }
    except ExpectedError as failure:
        console.error(failure.cause, failure.hint)
        return EXIT_EXPECTED
    worse = set()
    for pair, found in results.items():
        counts = {kind: sum(result == kind for result in found.values()) for kind in ("passed", "failed", "skipped")}
        console.out(f"{pair}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
        for name, result in found.items():
            if result == "failed" and results.get("f16", {}).get(name, "passed") == "passed":
                console.out(f"  {name}: failed")
                if pair != "f16":
                    worse.add(name)
    return EXIT_CHECK_FAILED if worse else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
