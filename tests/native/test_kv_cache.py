"""The mixed KV cache on models with random weights: near f16, exact where it must be, careful with what it is given."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import effort
import pytest
import tiny_models
from kv_helpers import BOUNDS, build, compile_driver, compile_native, findings, run, serve_several_clients

NATIVE = Path(__file__).parent

pytestmark = [pytest.mark.compiler, pytest.mark.core]  # what needs more than libllama is slow

MODELS = [
    *((arch, size) for arch in ("llama", "qwen3", "gemma3") for size in (64, 128, 256)),
    *((arch, 128) for arch in ("qwen3vl", "refact", "gemma4")),
]


@pytest.fixture(scope="module")
def program(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program that drives the cache through the C API."""
    return compile_driver("kv_cache.cpp", tree, tmp_path_factory.mktemp("kv cache"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    """A model of each architecture and head size."""
    folder = tmp_path_factory.mktemp("models")
    return {
        (arch, size): tiny_models.write_model(folder / f"{arch}-{size}.gguf", tiny_models.Shape.of(arch, size))
        for arch, size in MODELS
    }


@pytest.fixture(scope="module")
def llama(models: dict[tuple[str, int], Path]) -> Path:
    return models["llama", 128]


@pytest.mark.nightly
def test_the_bookkeeping_is_that_of_a_plain_list(tree: Path, tmp_path: Path) -> None:
    includes = [f"-I{tree / folder}" for folder in ("src", "include", "ggml/include")]
    sources = [tree / "src" / f"llama-kv-mixed-{name}.cpp" for name in ("cells", "planner")]
    program = compile_native("kv_cells.cpp", tmp_path, *sources, *includes)
    done = subprocess.run([program, str(effort.most(80, 3000))], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 16
    assert sum(row["tiles"] for row in rows) > 100
    assert sum(row["repacked"] for row in rows) > 0


@pytest.mark.parametrize("pair", BOUNDS)
@pytest.mark.parametrize(("arch", "size"), MODELS)
def test_logits_are_near_those_of_f16(
    arch: str, size: int, pair: str, program: Path, models: dict[tuple[str, int], Path]
) -> None:
    [found] = findings(program, models[arch, size], "logits", pair)
    assert found["nmse_blind"] > 0.05, "attention does not matter in this model"
    assert 0 < found["nmse_tail"] < BOUNDS[pair] * found["nmse_blind"]


@pytest.mark.parametrize("pair", ["k4v4", "k4", "v4"])
def test_every_batch_size_gives_the_same_logits(pair: str, program: Path, llama: Path) -> None:
    rows = findings(program, llama, "batches", pair)
    assert [row["batch"] for row in rows] == [1, 7, 128, 513]
    # the tokens of a batch see one another in f16: large batches lose less
    assert all(0 < row["nmse"] < BOUNDS[pair] for row in rows)


@pytest.mark.parametrize("pair", ["k4v4", "k2v1", "k8v8", "k4", "v4"])
@pytest.mark.parametrize("options", [{}, {"seqs": 2}, {"seqs": 2, "unified": 1, "exact": 0}], ids=str)
def test_generation_goes_on_after_a_restore(
    pair: str, options: dict[str, int], program: Path, llama: Path, tmp_path: Path
) -> None:
    rows = findings(program, llama, "restore", pair, **options, file=tmp_path / "a session.bin")
    assert [row["whole"] for row in rows] == [0, 1]
    assert all(row["worst"] < 1e-3 for row in rows)


@pytest.mark.parametrize("arch", ["gemma3", "gemma4"])
def test_generation_goes_on_beside_a_sliding_window(
    arch: str, program: Path, models: dict[tuple[str, int], Path]
) -> None:
    rows = findings(program, models[arch, 128], "restore", "k4v4", seqs=2, exact=0)
    assert all(row["worst"] < 1e-3 for row in rows)


@pytest.mark.parametrize("arch", ["qwen3vl", "refact"])
def test_generation_goes_on_in_other_models(
    arch: str, program: Path, models: dict[tuple[str, int], Path], tmp_path: Path
) -> None:
    rows = findings(program, models[arch, 128], "restore", "k4v4", file=tmp_path / "session.bin")
    assert [row["worst"] for row in rows] == [0, 0]


@pytest.mark.parametrize(
    ("options", "bound"),
    [({"window": 4096}, 1e-5), ({}, BOUNDS["k4v4"]), ({"window": 0, "sink": 0, "ubatch": 128}, BOUNDS["k4v4"])],
    ids=["all in f16", "some in tiles", "most in tiles"],
)
def test_parts_of_an_image_see_what_they_see_in_upstreams_cache(
    options: dict[str, int], bound: float, program: Path, models: dict[tuple[str, int], Path]
) -> None:
    rows = findings(program, models["qwen3vl", 128], "images", "k4v4", **options)
    assert len(rows) == 7
    assert all(row["nmse"] < bound for row in rows), rows


@pytest.mark.parametrize("arch", ["llama", "gemma3", "gemma4"])
def test_tokens_that_see_later_ones_do_so_in_the_same_layers(
    arch: str, program: Path, models: dict[tuple[str, int], Path]
) -> None:
    [found] = findings(program, models[arch, 128], "noncausal", "k4v4", window=2048, ubatch=512)
    assert found["nmse"] < 1e-5


@pytest.mark.parametrize("arch", ["llama", "gemma3", "gemma4"])
def test_a_damaged_state_is_refused_and_changes_nothing(
    arch: str, program: Path, models: dict[tuple[str, int], Path]
) -> None:
    [found] = findings(program, models[arch, 128], "damage", "k4v4")
    assert found["refused"] > 600


@pytest.mark.parametrize("unified", [0, 1])
@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen3vl", "refact", "gemma4"])
def test_sequences_do_not_leak(arch: str, unified: int, program: Path, models: dict[tuple[str, int], Path]) -> None:
    findings(program, models[arch, 128], "leak", "k4v4", seqs=2, unified=unified)


@pytest.mark.nightly
@pytest.mark.parametrize("options", [{}, {"seqs": 3}, {"seqs": 3, "unified": 1}], ids=str)
@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen3vl", "refact", "gemma4"])
def test_a_long_random_run_keeps_to_upstreams_cache(
    arch: str, options: dict[str, int], program: Path, models: dict[tuple[str, int], Path]
) -> None:
    [found] = findings(program, models[arch, 128], "random", "k4v4", **options, tokens=effort.most(15000, 150000))
    assert found["tokens"] > 100 * 128
    assert found["removals"] > 30
    assert found["nmse"] < BOUNDS["k4v4"]
    assert found["worst"] < 0.2


def test_a_forgotten_removal_shows(program: Path, llama: Path) -> None:
    done = run(program, llama, "random", "k4v4", forget=5, tokens=6000)
    assert done.returncode == 1 or json.loads(done.stdout)["worst"] > 0.2


@pytest.mark.parametrize(
    ("k", "v", "options", "says"),
    [
        ("qlutattn_v4_128x128", "f16", [], "K needs f16 or a qlutattn_k* type"),
        ("f16", "qlutattn_k4_128x128", [], "V f16 or a qlutattn_v* type"),
        ("qlutattn_k4_128x128", "q8_0", [], "do not go together"),
        ("qlutattn_k4_128x128", "qlutattn_v4_128x128", ["fa_off=1"], "need flash attention"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    k: str, v: str, options: list[str], says: str, program: Path, llama: Path
) -> None:
    done = subprocess.run([program, llama, "refuse", k, v, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout


# What is refused, and why; these must at least be among the models.
REFUSED = {
    "deepseek32": "an index picks",
    "qwen4exp": "an index picks",
    "grok": "Grok models run without flash attention",
}
PACKED = (
    "falcon-h1",
    "gemma2",
    "gemma3",
    "gpt-oss",
    "gptneox",
    "granite",
    "granitehybrid",
    "jamba",
    "llama",
    "llama4",
    "mistral3",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3moe",
    "qwen3next",
)
UNCACHED = ("dream", "llada", "llada-moe", "rnd1", "mamba", "mamba2")  # diffusion models and recurrent ones
PAGE = Path(__file__).parents[2] / "docs" / "kv-cache.md"  # lists all of them
LEARNED_POSITIONS = ("gpt2", "mpt", "starcoder")  # no more of them than in training, 128


@pytest.mark.slow
def test_every_architecture_is_packed_or_refused_in_words(program: Path, every_model: list[Path]) -> None:
    packed, refused = {}, {}
    for model in every_model:
        arch = model.stem.removesuffix("-dense").removesuffix("-moe")
        n = 128 if arch in LEARNED_POSITIONS else 400
        done = run(program, model, "any", "k4v4", window=32, n=n, ref_fa_off=1)
        assert done.returncode == 0, f"{arch}: {done.stderr[-2000:]}"
        [line] = done.stdout.splitlines()
        if not line.startswith("{"):
            refused[arch] = line
            assert "use f16" in line, f"{arch}: {line}"
            continue
        packed[arch] = found = json.loads(line)
        assert found["nmse_tail"] < BOUNDS["k4v4"] * found["nmse_blind"], f"{arch}: {found}"
        assert arch in UNCACHED or found["nmse_tail"] > 0, arch
    assert {arch: why in refused.get(arch, "") for arch, why in REFUSED.items()} == dict.fromkeys(REFUSED, True)
    assert set(PACKED) <= packed.keys()
    rows = re.findall(r"^\| (packed|no cache|refused)[^|]* \| (`.*`) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    listed = {arch: result for result, archs in rows for arch in re.findall(r"`([^`]+)`", archs)}
    packs = {arch: "no cache" if arch in UNCACHED else "packed" for arch in packed}
    assert listed == packs | dict.fromkeys(refused, "refused")


@pytest.mark.parametrize(("pair", "share"), [("k4v4", 30.0), ("k2v2", 18.0)])
def test_memory_is_what_is_printed(pair: str, share: float, program: Path, tmp_path: Path) -> None:
    # large enough for the cache to be most of what a context needs
    model = tiny_models.write_model(tmp_path / "m.gguf", tiny_models.Shape(n_layer=8, n_head_kv=4))
    [found] = findings(program, model, "memory", pair, ctx=32768, window=256, sink=128)
    assert 0 < found["share"] <= share
    assert found["f16_bytes"] + found["packed_bytes"] == pytest.approx(found["resident"], rel=0.05)


@pytest.fixture(scope="module")
def server(tree: Path) -> Path:
    return build("llama-server") / "llama-server"


@pytest.mark.slow
@pytest.mark.parametrize("more", [["-np", "3", "--no-kv-unified"], ["-np", "3", "--kv-unified"]], ids=" ".join)
@pytest.mark.parametrize("arch", ["llama", "qwen3vl", "gemma4"])
def test_a_server_with_several_clients(
    arch: str, more: list[str], server: Path, models: dict[tuple[str, int], Path], tmp_path: Path
) -> None:
    serve_several_clients(server, models[arch, 128], tmp_path, more)
