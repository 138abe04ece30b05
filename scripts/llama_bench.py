"""Run llama-bench with upstream's and packed cache types on a generated, attention-bound model; print a table."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from qlutattn_patch.building import cmake
from qlutattn_patch.system import console, process
from qlutattn_patch.system.errors import EXIT_EXPECTED, EXIT_OK, ExpectedError
from qlutattn_patch.workspace import Workspace

TYPES = {
    **{name: (name, name) for name in ("f16", "q8_0", "q4_0")},
    **{f"K{k}V{v}": (f"qlutattn_k{k}_128x128", f"qlutattn_v{v}_128x128") for k, v in ((4, 4), (4, 2), (2, 2), (1, 1))},
}


def make_model(path: Path) -> Path:
    """Write a model of one layer with 16 query heads and 4 kv heads of 128 channels, and a minimal rest."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    import tiny_models  # type: ignore[import-not-found]

    shape = tiny_models.Shape(n_head=16, n_head_kv=4, n_layer=1, n_embd=128, n_ff=128)
    path.parent.mkdir(parents=True, exist_ok=True)
    tiny_models.write_model(path, shape)
    return path


def measure(
    program: Path, model: Path, types: tuple[str, str], depth: int, arguments: argparse.Namespace
) -> dict[str, float]:
    """Tokens per second of prompt and generation after this many tokens."""
    options = {
        "-m": model,
        "-ctk": types[0],
        "-ctv": types[1],
        "-fa": "1",
        "-t": arguments.threads,
        "-p": arguments.prompt,
        "-n": arguments.generate,
        "-d": depth,
        "-r": arguments.repetitions,
        "-o": "json",
    }
    done = process.capture([program, *(str(word) for pair in options.items() for word in pair)])
    if done.status != 0:
        console.warn(done.stderr.strip().splitlines()[-1])
        raise ExpectedError(f"llama-bench ended with {done.status}.", "see its output above")
    rows = json.loads(done.stdout)
    return {"prompt" if row["n_prompt"] else "generate": float(row["avg_ts"]) for row in rows}


def main() -> int:
    """Measure one pair of types after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--types", nargs="+", choices=TYPES, default=["f16", "q8_0", "q4_0", "K4V4", "K2V2"])
    parser.add_argument("--depth", type=int, nargs="+", default=[8192], help="tokens in the cache (default: 8192)")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--program", type=Path, help="the llama-bench to use (default: that of the preset native)")
    arguments = parser.parse_args()
    try:
        workspace = Workspace.find()
        program = arguments.program or cmake.build(workspace, "native", ("llama-bench",)).bin / "llama-bench"
        model = make_model(workspace.root / "build" / "llama-bench" / "attention.gguf")
        console.out(
            "| depth | types | prompt, t/s | generation, t/s | prompt / f16 | generation / f16 | generation / q4_0 |"
        )
        console.out("|---:|---|---:|---:|---:|---:|---:|")
        for depth in arguments.depth:
            found: dict[str, dict[str, float]] = {}
            for name in arguments.types:
                found[name] = measure(program.resolve(), model, TYPES[name], depth, arguments)

                def ratio(work: str, base: str, found: dict[str, dict[str, float]] = found, name: str = name) -> str:
                    return f"{found[name][work] / found[base][work]:.2f}" if base in found else "-"

                console.out(
                    f"| {depth} | {name} | {found[name]['prompt']:.1f} | {found[name]['generate']:.1f} | "
                    f"{ratio('prompt', 'f16')} | {ratio('generate', 'f16')} | {ratio('generate', 'q4_0')} |"
                )
    except ExpectedError as failure:
        console.error(failure.cause, failure.hint)
        return EXIT_EXPECTED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
