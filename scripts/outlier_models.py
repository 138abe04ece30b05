"""Write variants of a model that compute nearly the same, but whose keys or values have outliers as larger models have.

    python scripts/outlier_models.py M.gguf DIRECTORY
    qlutattn eval --model DIRECTORY/M-bias100.gguf --text T.txt --kv-window 0 --kv-sink 0

biasN     N is added to the first channel of the two slowest rotary pairs of each key head, in all layers
channelN  a rotary pair of each key head is N times as large, and the queries' pair N times smaller: the same function
valueN    in the first layer, the values of one token (a line break) become N times as long as those of others, along
          a direction that the layer's output has been made to ignore
docs/outliers.md has results, and says how to read them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from numpy.typing import NDArray

Floats = NDArray[np.float32]
# which channels a rotary pair has: neighbours, or one of each half
_NEIGHBOURS = ("llama", "mistral3", "baichuan", "deci", "granite", "cohere")
_HALVES = ("qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "stablelm", "olmo2")
_LINE_BREAKS = ("\n", "Ċ", "<0x0A>")
_SAMPLE = 8192  # tokens of which the spread of embeddings is estimated


class Model:
    """A GGUF file's tensors, changed ones in f32."""

    def __init__(self, path: Path) -> None:
        self.reader = GGUFReader(path)
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        self.arch = str(self.field("general.architecture"))
        if self.arch not in _NEIGHBOURS + _HALVES:
            raise SystemExit(f"{path} has the architecture '{self.arch}'; known are {', '.join(_NEIGHBOURS + _HALVES)}")
        self.layers = int(self.of_arch("block_count"))
        self.heads, self.kv_heads = (int(self.of_arch(f"attention.head_count{end}")) for end in ("", "_kv"))
        width = int(self.of_arch("embedding_length"))
        self.size = int(self.of_arch("attention.key_length", width // self.heads))
        self.rotary = int(self.of_arch("rope.dimension_count", self.size))

    def field(self, name: str, default: object = None) -> object:
        field = self.reader.fields.get(name)
        if field is None and default is None:
            raise SystemExit(f"the model has no '{name}', which this script needs")
        return default if field is None else field.contents()

    def of_arch(self, name: str, default: int | None = None) -> int | str:
        found = self.field(f"{self.arch}.{name}", default)
        if not isinstance(found, (int, float)):
            raise SystemExit(f"the model's '{name}' differs between layers, which this script does not know")
        return int(found)

    def weight(self, name: str) -> Floats:
        """A tensor of at least 16 bits as f32."""
        if name not in self.tensors:
            raise SystemExit(f"the model has no tensor '{name}'")
        tensor = self.tensors[name]
        kind, data = tensor.tensor_type, np.asarray(tensor.data)
        if kind == GGMLQuantizationType.BF16:
            return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(tensor.shape[::-1])
        if kind not in (GGMLQuantizationType.F16, GGMLQuantizationType.F32):
            raise SystemExit(f"the tensor '{name}' is quantised ({kind.name}): take an f16 or bf16 model")
        return data.astype(np.float32)

    def pair(self, index: int) -> list[int]:
        """The channels of a rotary pair; the last pairs are the slowest."""
        first = index % (self.rotary // 2)
        return [2 * first, 2 * first + 1] if self.arch in _NEIGHBOURS else [first, first + self.rotary // 2]


def biased(model: Model, size: float) -> dict[str, Floats]:
    """A bias on the first channels of the slowest pairs of all key heads."""
    if "blk.0.attn_k_norm.weight" in model.tensors:
        raise SystemExit("this model normalises its keys, so a bias would not last: use --only channel or value")
    bias = np.zeros((model.kv_heads, model.size), np.float32)
    bias[:, [model.pair(-1)[0], model.pair(-2)[0]]] = size
    changed = {}
    for layer in range(model.layers):
        name = f"blk.{layer}.attn_k.bias"
        changed[name] = bias.reshape(-1) + (model.weight(name) if name in model.tensors else 0)
    return changed


def widened(model: Model, factor: float) -> dict[str, Floats]:
    """A pair of channels longer in keys and shorter in queries; where both are normalised, by their norms' weights."""
    channels = model.pair(model.rotary * 3 // 8)
    changed = {}
    for layer in range(model.layers):
        for name, heads, scale in (("attn_q", model.heads, 1 / factor), ("attn_k", model.kv_heads, factor)):
            of = f"blk.{layer}.{name}"
            if f"{of}_norm.weight" in model.tensors:
                norm = model.weight(f"{of}_norm.weight").copy()
                norm[channels] *= np.float32(scale)
                changed[f"{of}_norm.weight"] = norm
                continue
            for part in ("weight", "bias") if f"{of}.bias" in model.tensors else ("weight",):
                whole = model.weight(f"{of}.{part}")
                rows = whole.reshape(heads, model.size, -1).copy()
                rows[:, channels] *= np.float32(scale)
                changed[f"{of}.{part}"] = rows.reshape(whole.shape)
    return changed


def massive(model: Model, factor: float) -> dict[str, Floats]:
    """Long values of one token, along a direction of each head that the output ignores from now on."""
    token = _line_break(model)
    embeddings = model.weight("token_embd.weight")
    norm = model.weight("blk.0.attn_norm.weight")
    some = np.linspace(0, len(embeddings) - 1, min(len(embeddings), _SAMPLE)).astype(int)
    inputs = _normalised(embeddings[some]) * norm
    of_token = _normalised(embeddings[token]) * norm
    spread = inputs.T @ inputs / len(some)
    finder = np.linalg.solve(spread + np.float32(1e-3 * np.trace(spread) / len(spread)) * np.eye(len(spread)), of_token)
    finder /= finder @ of_token  # 1 for the token, near 0 for others

    values, output = model.weight("blk.0.attn_v.weight"), model.weight("blk.0.attn_output.weight")
    size = len(values) // model.kv_heads
    made, ignoring = (
        values.reshape(model.kv_heads, size, -1).copy(),
        output.reshape(len(output), model.kv_heads, -1, size),
    )
    ignoring = ignoring.copy()
    for head in range(model.kv_heads):
        slices = ignoring[:, head].reshape(-1, size)
        way = np.linalg.eigh(slices.T @ slices)[1][:, 0]  # what the output uses least
        ignoring[:, head] -= np.multiply.outer(ignoring[:, head] @ way, way)
        length = np.linalg.norm(inputs @ made[head].T, axis=1).mean()
        made[head] += np.float32(factor * length) * np.outer(way, finder)
    return {
        "blk.0.attn_v.weight": made.reshape(values.shape).astype(np.float32),
        "blk.0.attn_output.weight": ignoring.reshape(output.shape),
    }


VARIANTS: dict[str, tuple[Callable[[Model, float], dict[str, Floats]], float]] = {
    "bias30": (biased, 30),
    "bias100": (biased, 100),
    "bias300": (biased, 300),
    "channel10": (widened, 10),
    "channel100": (widened, 100),
    "value30": (massive, 30),
    "value100": (massive, 100),
}


def write(model: Model, path: Path, changed: Mapping[str, Floats]) -> None:
    """The model with changed or added tensors, in f32."""
    writer = GGUFWriter(path, model.arch)
    for field in model.reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        of_items = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], of_items)
    parts: dict[str, tuple[NDArray[np.generic], GGMLQuantizationType]] = {
        name: (np.asarray(tensor.data), tensor.tensor_type) for name, tensor in model.tensors.items()
    }
    parts |= {name: (data, GGMLQuantizationType.F32) for name, data in changed.items()}
    for name, (data, kind) in parts.items():
        writer.add_tensor_info(name, data.shape, data.dtype, data.nbytes, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for data, _ in parts.values():
        writer.write_tensor_data(data)
    writer.close()


def main() -> None:
    """Write the variants, and print their names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", type=re.compile, default=re.compile(""), metavar="REGEX")
    given = parser.parse_args()
    chosen = {name: variant for name, variant in VARIANTS.items() if given.only.search(name)}
    if not given.model.is_file():
        parser.error(f"there is no file {given.model}")
    if not chosen:
        parser.error(f"--only names none of {', '.join(VARIANTS)}")
    model = Model(given.model)
    given.directory.mkdir(parents=True, exist_ok=True)
    for name, (make, size) in chosen.items():
        path = given.directory / f"{given.model.stem}-{name}.gguf"
        write(model, path, make(model, size))
        print(path, flush=True)


def _normalised(x: Floats) -> Floats:
    unit: Floats = x / np.sqrt((x * x).mean(-1, keepdims=True))
    return unit


def _line_break(model: Model) -> int:
    tokens = model.field("tokenizer.ggml.tokens")
    assert isinstance(tokens, list)
    found = next((tokens.index(text) for text in _LINE_BREAKS if text in tokens), None)
    if found is None:
        raise SystemExit("the model's vocabulary has no token for a line break: use --only bias or channel")
    return int(found)


if __name__ == "__main__":
    main()
