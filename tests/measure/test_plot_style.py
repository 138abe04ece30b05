"""Plots: a colour per cache in all of them, also for colour-blind readers; light and dark; no label over another."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qlutattn_patch.measure import bench, evaluate, plot_style, plots, sampling
from qlutattn_patch.measure.documents import BenchRow, EvalRow, SamplingRow, SamplingSide
from qlutattn_patch.measure.plot_style import _COLORS, scale_of, style_of

DARK = "#16181c"
# Machado, Oliveira and Fernandes (2009), full deficiency, of linear RGB
SIMULATED = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def linear(color: str) -> np.ndarray:
    rgb = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def luminance(color: str) -> float:
    return float(linear(color) @ [0.2126, 0.7152, 0.0722])


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb.clip(0, 1)
    f = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("cache", _COLORS)
def test_a_colour_is_seen_on_white_and_on_black(cache: str) -> None:
    color = style_of(cache)["color"]
    assert 1.05 / (luminance(color) + 0.05) >= 3
    assert (luminance(color) + 0.05) / (luminance(DARK) + 0.05) >= 3


@pytest.mark.parametrize("eye", ["usual", *SIMULATED])
def test_caches_differ_for_every_eye(eye: str) -> None:
    seen = SIMULATED.get(eye, np.eye(3))
    colors = {cache: lab(np.array(seen) @ linear(style_of(cache)["color"])) for cache in _COLORS}
    for one, other in itertools.combinations(colors, 2):
        assert np.linalg.norm(colors[one] - colors[other]) > 10, (one, other)


def test_a_cache_has_one_colour_with_any_window_and_a_marker_of_its_own() -> None:
    assert style_of("K4V4+w512")["color"] == style_of("K4V4")["color"]
    assert style_of("K4V4+w512")["linestyle"] == ":"
    packed = [cache for cache in _COLORS if cache[0] == "K"]
    assert len({style_of(cache)["marker"] for cache in packed}) >= len(packed) - 1
    assert style_of("K3V3")["color"] == style_of("K3V3")["color"]


@pytest.mark.parametrize(
    ("values", "scale"), [((1, 9), "linear"), ((0.3, 14), "log"), ((0, 100), "linear"), ((), "linear")]
)
def test_data_that_spans_a_decade_is_logarithmic(values: tuple[float, ...], scale: str) -> None:
    assert scale_of(values) == scale


# --- the plots themselves


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were drawn."""
    figures: list[Any] = []
    save = plot_style.save

    def keep(figure: Any, path: Path) -> None:
        save(figure, path)
        figures.append(figure)

    monkeypatch.setattr(plots, "save", keep)
    return figures


def timed(cache: str, keys: int, ratio: float) -> BenchRow:
    upstream = cache in ("f16", "q8_0", "q4_0")
    return BenchRow(
        id=f"decode-{keys}-t1-{cache}", work="decode", n_q=1, n_kv=keys, threads=1, cache=cache, type_k=None,
        type_v=None, window=512 if "w512" in cache else 0, kernel="upstream" if upstream else "dot-avx2", bytes=1,
        rounds=1, median_ms=keys / 1000 / ratio, min_ms=1, spread=None, floor_ms=None, peak_ms=None, vs_f16=ratio,
        vs_floor=None, vs_peak=None,
    )  # fmt: skip


RATIOS = {"f16": 1.0, "q8_0": 0.7, "q4_0": 0.35, "K4V4": 8.5, "K4V2": 9.0, "K2V2": 9.8, "K1V1": 13.0, "K4V4+w512": 6.0}
TIMED = bench.Result(
    "A CPU", [], None, "native", "warm", "heads", 1.0, 1.0, [], [],
    [
        timed(cache, keys, ratio)
        for cache, ratio in {**RATIOS, "w512": 200.0}.items()
        for keys in (512, 2048, 8192, 32768, 131072)
    ],
)  # fmt: skip


def judged(cache: str, bits: float, kld: float) -> EvalRow:
    types = ("f16", cache) if cache.startswith("V") else (cache, f"{cache}'" if cache[0] == "K" else cache)
    size = (2 << 20, bits + 6)
    return EvalRow(cache, *types, 128, 128, 64, bits, *size, 17.0, 0.0, 0.0, 0.0, kld, 0.0, 0.0, 0.0, 99.0, 0.0)


JUDGED = evaluate.Result(
    "m.gguf", "t.txt", 1024, 93, 47523,
    [
        judged(*row)
        for row in (
            ("q8_0", 8.5, 4.4e-5), ("q5_0", 5.5, 1.75e-3), ("q4_0", 4.5, 6.2e-3), ("K4V4", 4.25, 3.9e-4),
            ("K4V2", 3.25, 1.56e-3), ("K2V2", 2.25, 4.4e-3), ("K2V1", 1.75, 7.6e-3), ("K1V1", 1.25, 1.2e-2),
            ("K4", 10.125, 3.1e-4), ("V4", 10.125, 2.9e-4), ("K4V4+w0+s0", 4.25, 1.44e-3),
            ("K4V2+w0+s0", 3.25, 5.96e-3), ("K4+w0+s0", 10.125, 3.2e-4),
        )
    ],
)  # fmt: skip
CHAINS = ("greedy", "top-k", "default", "top-p", "min-p")
SAMPLED = sampling.Result(
    "sampling", "A CPU", [], None, "native", "avx512",
    [
        SamplingRow(
            id="x", chain=chain, vocab=vocab, logits=logits, kept=40, tokens=80, different=0,
            stock=SamplingSide(vocab / 500, 1, 0.1), select=SamplingSide(vocab / 9000, 1, 0.1), speedup=18,
        )
        for chain in CHAINS
        for vocab in (32000, 128256, 151936, 262144)
        for logits in ("gauss", "peaked", "flat", "recorded")
    ],
)  # fmt: skip
DRAW = {
    "bench": (plots.plot_bench, TIMED),
    "eval": (plots.plot_evaluation, JUDGED),
    "sampling": (plots.plot_sampling, SAMPLED),
}


def undrawn(figure: Any) -> list[Any]:
    """The labels of ticks that are outside of their axis, or on an axis that shows none."""
    found = []
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low <= tick.get_loc() <= high or not tick.label1.get_visible():
                found += [tick.label1, tick.label2]
    return found


@pytest.mark.parametrize("name", DRAW)
def test_no_two_labels_overlap_and_none_is_cut_off(name: str, tmp_path: Path, drawn: list[Any]) -> None:
    draw, result = DRAW[name]
    draw(result, tmp_path / "plot.png")  # type: ignore[operator]
    [figure] = drawn
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    shown = {}
    for text in figure.findobj(lambda artist: hasattr(artist, "get_text") and artist.get_text().strip()):
        box = text.get_window_extent(renderer)
        if text.get_visible() and box.width > 1 and text not in undrawn(figure):
            shown[text.get_text(), box.x0, box.y0] = box
    assert len(shown) > 10
    for (one, a), (other, b) in itertools.combinations(shown.items(), 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        down = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across <= 1 or down <= 1, (one[0], other[0])
    for (text, *_), box in shown.items():
        assert box.x0 >= 0, text
        assert box.x1 <= figure.bbox.width, text
        assert box.y0 >= 0, text
        assert box.y1 <= figure.bbox.height, text


def test_the_ratio_is_logarithmic_and_leaves_the_window_alone_out(tmp_path: Path, drawn: list[Any]) -> None:
    plots.plot_bench(TIMED, tmp_path / "plot.svg")
    times, ratios = drawn[0].axes
    assert (times.get_yscale(), ratios.get_yscale()) == ("log", "log")
    assert "w512" in [line.get_label() for line in times.lines]
    drawn_ratios = [y for line in ratios.lines for y in line.get_ydata()]
    assert max(drawn_ratios) == 13
    assert ratios.get_ylim()[1] < 20


def test_both_pictures_have_the_caches_colour_and_follow_the_readers_mode(tmp_path: Path) -> None:
    plots.plot_bench(TIMED, tmp_path / "bench.svg")
    plots.plot_evaluation(JUDGED, tmp_path / "eval.svg")
    for name in ("bench", "eval"):
        svg = (tmp_path / f"{name}.svg").read_text(encoding="utf-8")
        assert all(style_of(cache)["color"] in svg for cache in ("K4V4", "K1V1", "q8_0"))
        assert svg.count("@media (prefers-color-scheme: dark)") == 1


def test_the_report_has_the_same_colours() -> None:
    from qlutattn_patch.workflow import figures

    for cache, at in figures._OF_CACHE.items():
        assert figures.LIGHT_AND_DARK[at][0] == style_of(cache)["color"], cache
