"""What is read from llama-perplexity: on what it really printed, and on what it might."""

from __future__ import annotations

from pathlib import Path

import fake_tools
import pytest
from helpers import ROOT

from qlutattn_patch.measure.caches import Cache
from qlutattn_patch.measure.perplexity import (
    Context,
    Refusal,
    Tool,
    base_bytes,
    check_count,
    compare,
    figures,
    probe,
    scored,
)
from qlutattn_patch.measure.perplexity import write_base as write
from qlutattn_patch.system.errors import ExpectedError

SAID = ROOT / "tests" / "data" / "perplexity"
Q4 = Cache("q4_0", "q4_0", "q4_0", 4.5)
STOCK = Context(n_vocab=513, n_ctx_train=65536, cache_bytes=None, window=None, sink=None)


def said(name: str) -> list[str]:
    return (SAID / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def tool(tmp_path: Path, text: str, status: int = 0) -> Tool:
    """A llama-perplexity that prints a text and leaves its arguments in a file."""
    folder = tmp_path / "Größe 1"
    folder.mkdir(exist_ok=True)
    (folder / "said.txt").write_text(text, encoding="utf-8")
    program = folder / "llama-perplexity"
    code = f"open({str(folder / 'argv')!r}, 'w').write('\\n'.join(sys.argv[1:]))\n"
    code += f"sys.stdout.buffer.write(open({str(folder / 'said.txt')!r}, 'rb').read())\nsys.exit({status})\n"
    fake_tools.write_program(program, f"import sys\n{code}")
    return Tool(program, Path("tiny.gguf"), 256, 2)


def recorded(tmp_path: Path, name: str, status: int = 0) -> Tool:
    return tool(tmp_path, "\n".join(said(name)) + "\n", status)


def argv(made: Tool) -> list[str]:
    return (made.program.parent / "argv").read_text(encoding="utf-8").split("\n")


def test_a_probe_tells_the_vocabulary_and_the_size_of_the_cache(tmp_path: Path) -> None:
    made = recorded(tmp_path, "probe")
    assert probe(made, Q4, tmp_path / "empty") == Context(513, 65536, round(0.14 * 2**20), None, None)
    assert argv(made)[:12] == ["-m", "tiny.gguf", "-c", "256", "-b", "256", "-ub", "128", "-fa", "on", "-fit", "off"]
    assert argv(made)[12:18] == ["-t", "2", "-ctk", "q4_0", "-ctv", "q4_0"]


def test_a_probe_of_a_packed_cache_tells_its_bytes_its_window_and_its_sink(tmp_path: Path) -> None:
    found = probe(recorded(tmp_path, "packed"), Q4, tmp_path)
    assert isinstance(found, Context)
    assert (found.cache_bytes, found.window, found.sink) == (524288 + 331776, 64, 128)


def test_a_probe_adds_up_the_caches_of_all_layers(tmp_path: Path) -> None:
    """As where some layers have a sliding window, and a cache of their own."""
    own = [line for line in said("probe") if "llama_kv_cache: size" in line]
    found = probe(tool(tmp_path, "\n".join([*own, *said("packed")])), Q4, tmp_path)
    assert isinstance(found, Context)
    assert found.cache_bytes == 524288 + 331776 + round(0.14 * 2**20)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "refused",
            "packed caches need heads of 64, 128 or 256 channels, the same for K and V: layer 0 has 32 and 32;"
            " use f16, q8_0 or q4_0",
        ),
        ("unknown", "invalid argument: --kv-window"),
    ],
)
def test_a_refusal_is_told_in_the_tools_words(name: str, why: str, tmp_path: Path) -> None:
    assert probe(recorded(tmp_path, name, 1), Q4, tmp_path) == Refusal(Q4, why)


def test_a_tool_that_dies_silently_refuses_too(tmp_path: Path) -> None:
    assert probe(tool(tmp_path, "", 3), Q4, tmp_path) == Refusal(Q4, "exit status 3")
    assert probe(tool(tmp_path, "one\n\ntwo.\n\n", 3), Q4, tmp_path) == Refusal(Q4, "two")


def test_an_assertion_is_the_cause(tmp_path: Path) -> None:
    found = probe(tool(tmp_path, "x.cpp:1: GGML_ASSERT(y) failed\n[New LWP 7]\n", 134), Q4, tmp_path)
    assert found == Refusal(Q4, "x.cpp:1: GGML_ASSERT(y) failed")


def test_a_context_without_a_vocabulary_is_unexpected(tmp_path: Path) -> None:
    with pytest.raises(ExpectedError, match="does not report the size of the vocabulary"):
        probe(recorded(tmp_path, "short"), Q4, tmp_path)


def test_the_size_of_the_logits_is_known_before(tmp_path: Path) -> None:
    assert scored(256) == 127
    assert base_bytes(n_vocab=513, n_ctx=256, chunks=4) == 530404  # as was seen
    assert base_bytes(n_vocab=4095, n_ctx=1024, chunks=93) == base_bytes(4096, 1024, 93) == 390069548


def test_the_base_is_written_with_progress(tmp_path: Path) -> None:
    sizes: list[int] = []
    moves: list[tuple[int, int, str]] = []
    made = recorded(tmp_path, "base")
    assert write(made, Path("t.txt"), 4, Path("b"), sizes.append, lambda *at: moves.append(at)) == 4
    assert sizes == [4]
    assert moves == [(1, 4, "f16"), (2, 4, "f16"), (3, 4, "f16"), (4, 4, "f16")]
    assert argv(made)[14:] == ["-f", "t.txt", "--ppl-output-type", "1", "--kl-divergence-base", "b", "--chunks", "4"]


def test_a_text_that_is_too_short_is_counted(tmp_path: Path) -> None:
    with pytest.raises(ExpectedError, match=r"^t\.txt has only 194 tokens: a context of 256 needs 512\.$"):
        write(recorded(tmp_path, "short"), Path("t.txt"), None, Path("b"), print, print)


@pytest.mark.parametrize("status", [0, 1])
def test_a_base_without_an_end_is_unexpected(status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = tool(tmp_path, "\n".join(said("base")[:10]), status)
    with pytest.raises(ExpectedError, match=f"exit status {status} and no perplexity of the f16 cache"):
        write(cut, Path("t.txt"), None, Path("b"), lambda _: None, lambda *_: None)
    assert "4313.8202" in capsys.readouterr().err


def test_a_comparison_gives_the_figures(tmp_path: Path) -> None:
    moves: list[int] = []
    made = recorded(tmp_path, "compare")
    assert compare(made, Q4, STOCK, Path("b"), moves.append) == {
        "ppl": 4158.015692,
        "ppl_err": 374.413913,
        "dppl": -20.919944,
        "dppl_err": 68.085192,
        "kld_mean": 0.062577,
        "kld_mean_err": 0.00131,
        "kld_median": 0.056721,
        "kld_p999": 0.244718,
        "same_top": 71.063,
        "same_top_err": 2.014,
    }
    assert moves == [1, 2, 3, 4]
    assert argv(made)[14:] == ["-ctk", "q4_0", "-ctv", "q4_0", "--kl-divergence", "--kl-divergence-base", "b"]


@pytest.mark.parametrize(
    ("window", "sink", "ubatch"),
    [(0, 0, 128), (128, 128, 128), (256, 0, 128), (64, 128, 64), (64, 64, 128), (100, 0, 4)],
)
def test_a_batch_ends_where_a_tile_would_be_packed(window: int, sink: int, ubatch: int, tmp_path: Path) -> None:
    """Else its queries would find as f16 what they would not in generation."""
    context = Context(513, 65536, None, window, sink)
    seen = set()
    for n in range(1024):  # tokens before a query
        start = n // context.ubatch * context.ubatch
        packed = [max(0, before - window - sink) // 128 for before in (start, n)]
        seen.add(packed[0] == packed[1])
    assert seen == {True}
    assert context.ubatch == ubatch
    made = recorded(tmp_path, "compare")
    compare(made, Q4, context, Path("b"), print)
    assert argv(made)[6:8] == ["-ub", str(ubatch)]


def test_a_comparison_that_fails_shows_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExpectedError, match="ended with exit status 9 while comparing q4_0; its output"):
        compare(recorded(tmp_path, "compare", 9), Q4, STOCK, Path("b"), print)
    assert "Same top p: 71.063" in capsys.readouterr().err


@pytest.mark.parametrize(
    "gone", ["Mean PPL(Q) ", "Mean PPL(Q)-PPL(base)", "Mean    KLD", "Median  KLD", "99.9%   KLD", "Same"]
)
def test_each_figure_must_be_there(gone: str) -> None:
    lines = [line for line in said("compare") if not line.startswith(gone)]
    assert len(lines) == len(said("compare")) - 1
    with pytest.raises(ExpectedError, match=r"reports no \w+ of q4_0"):
        figures(lines, "q4_0")


@pytest.mark.parametrize("value", ["-nan", "nan", "inf", "-inf"])
def test_a_figure_must_be_a_number(value: str) -> None:
    lines = [line.replace("0.062577", value) for line in said("compare")]
    with pytest.raises(ExpectedError, match=f"'Mean    KLD:   {value} .* of q4_0"):
        figures(lines, "q4_0")


def test_an_uncertainty_that_is_the_root_of_less_than_nothing_is_nothing() -> None:
    lines = [line.replace(" 68.085192", "      -nan") for line in said("compare")]
    found = figures(lines, "f16")
    assert (found["dppl"], found["dppl_err"]) == (-20.919944, 0)


def test_a_divergence_may_be_rounded_below_0() -> None:
    lines = [line.replace(" 0.056721", "-0.000001") for line in said("compare")]
    assert figures(lines, "q4_0")["kld_median"] == -0.000001


def test_too_few_tokens_make_no_statistics() -> None:
    check_count(1, 256)
    with pytest.raises(ExpectedError, match=r"3 chunk\(s\) of 64 tokens have 93 scored tokens; statistics need 100"):
        check_count(3, 64)
