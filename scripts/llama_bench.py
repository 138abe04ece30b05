"""Run llama-bench with upstream's and packed cache types on a generated model; print a table."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median

from qlutattn_patch.building import cmake
from qlutattn_patch.system import console, process
from qlutattn_patch.system.errors import EXIT_EXPECTED, EXIT_OK, ExpectedError
from qlutattn_patch.workspace import Workspace

TYPES = {
    **{name: (name, name) for name in ("f16", "q8_0", "q4_0")},
    **{
        f"K{k}V{v}": (f"qlutattn_k{k}_128x128", f"qlutattn_v{v}_128x128")
        for k, v in ((8, 8), (4, 4), (4, 2), (2, 2), (1, 1))
    },
}


def make_model(path: Path) -> Path:
    """Write a llama of 8 layers, 1024 wide, with 16 query and 8 kv heads of 128 channels, and random f16 weights."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    import tiny_models  # type: ignore[import-not-found]

    shape = tiny_models.Shape(n_head=16, n_head_kv=8, n_layer=8, n_embd=1024, n_ff=3072)
    path.parent.mkdir(parents=True, exist_ok=True)
    tiny_models.write_model(path, shape, half=True)
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
        "-r": 1,
        "-o": "json",
    }
    done = process.capture([program, *(str(word) for pair in options.items() for word in pair)])
    if done.status != 0:
        console.warn(done.stderr.strip().splitlines()[-1])
        raise ExpectedError(f"llama-bench ended with {done.status}.", "see its output above")
    rows = json.loads(done.stdout)
    return {"prompt" if row["n_prompt"] else "generate": float(row["avg_ts"]) for row in rows}


def in_turns(
    program: Path, model: Path, depth: int, arguments: argparse.Namespace
) -> dict[str, list[dict[str, float]]]:
    """Each cache once in each round, so that what else the machine does falls on all of them."""
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in arguments.types}
    for number in range(arguments.rounds):
        for name, found in rounds.items():
            console.step(f"{depth} tokens, round {number + 1} of {arguments.rounds}: {name}")
            found.append(measure(program, model, TYPES[name], depth, arguments))
    return rounds


def row(depth: int, name: str, rounds: dict[str, list[dict[str, float]]]) -> str:
    """Medians over the rounds, of tokens per second and of the ratios to f16's in the same round."""

    def ratio(work: str) -> str:
        if "f16" not in rounds:
            return "-"
        ratios = [mine[work] / other[work] for mine, other in zip(rounds[name], rounds["f16"], strict=True)]
        return f"{median(ratios):.2f}"

    speeds = [f"{median(found[work] for found in rounds[name]):.1f}" for work in ("prompt", "generate")]
    return f"| {depth} | {name} | {speeds[0]} | {speeds[1]} | {ratio('prompt')} | {ratio('generate')} |"


def main() -> int:
    """Measure one depth after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--types", nargs="+", choices=TYPES, default=["f16", "q8_0", "K8V8", "K4V4", "K2V2"])
    parser.add_argument("--depth", type=int, nargs="+", default=[0, 2048, 8192], help="tokens in the cache")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--program", type=Path, help="the llama-bench to use (default: that of the preset native)")
    arguments = parser.parse_args()
    try:
        workspace = Workspace.find()
        program = arguments.program or cmake.build(workspace, "native", ("llama-bench",)).bin / "llama-bench"
        model = make_model(workspace.root / "build" / "llama-bench" / "llama-8x1024.gguf")
        console.out("| depth | types | prompt, t/s | generation, t/s | prompt / f16 | generation / f16 |")
        console.out("|---:|---|---:|---:|---:|---:|")
        for depth in arguments.depth:
            rounds = in_turns(program.resolve(), model, depth, arguments)
            for name in arguments.types:
                console.out(row(depth, name, rounds))
    except ExpectedError as failure:
        console.error(failure.cause, failure.hint)
        return EXIT_EXPECTED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
