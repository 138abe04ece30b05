"""The report's plots are drawn in the page's colours, stand alone, and never clash with one another."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest
from report_results import align_result, bench_result, eval_result, sampling_result

from qlutattn_patch.measure import bench, evaluate, sampling
from qlutattn_patch.proof.align import Report
from qlutattn_patch.proof.documents import AlignDocument
from qlutattn_patch.system.records import typed
from qlutattn_patch.workflow import figures

pytest.importorskip("matplotlib")


def without_arguments(raw):
    return {name: value for name, value in raw.items() if name != "arguments"}


def of_bench(**choice):
    return figures.of_bench(typed(without_arguments(bench_result(**choice)), bench.Result), "bench-native")


def every_figure():
    return [
        *figures.of_align(Report(typed(align_result(), AlignDocument), ""), "align-native"),
        *of_bench(),
        *figures.of_sampling(typed(without_arguments(sampling_result()), sampling.Result), "sampling-native"),
        *figures.of_eval(typed(without_arguments(eval_result()), evaluate.Result), "eval-native"),
    ]


def test_they_are_whole_and_take_their_colours_and_fonts_from_the_page():
    found = every_figure()
    assert len(found) == 1 + 4 + 1 + 1
    for caption, text in found:
        root = ET.fromstring(text)
        assert caption
        assert "viewBox" in root.attrib
        assert not {"width", "height"} & root.attrib.keys()
        assert re.findall(r"#[0-9a-f]{6}", text) == []
        assert "var(--ink)" in text
        assert "font-family" not in text
        assert "DejaVu" not in text
        assert set(re.findall(r"https?://[^\s\"<]+", text)) == {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }


def test_ids_are_of_one_plot_alone_and_all_that_is_named_is_there():
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for _, text in every_figure()]
    assert sum(map(len, ids)) == len(set.union(*ids))
    for (_, text), mine in zip(every_figure(), ids, strict=True):
        named = re.findall(r'xlink:href="#([^"]+)"|url\(#([^)]+)\)', text)
        assert named
        assert {one or other for one, other in named} <= mine


def test_a_cache_has_one_colour_in_all_plots_and_upstreams_are_dashed():
    for _, text in of_bench(caches=("f16", "q8_0", "K2V2", "K4V4")):
        assert "--series-1" in text  # K4V4
        assert "--series-3" in text  # K2V2
        assert "--series-0" not in text
        assert "stroke-dasharray" in text
    for _, text in of_bench(caches=("f16", "K4V4")):
        assert "--series-1" in text
        assert "stroke-dasharray" not in text


def test_names_are_text_and_no_formula():
    for _, text in of_bench(caches=("f16", "<b>$x_1$", "K4V4")):
        assert "<b>" not in text
        assert "&lt;b&gt;$x_1$" in text


def test_what_cannot_be_drawn_is_left_out():
    raw = align_result(failed=True)
    raw["cases"][0]["worst_ratio"] = math.inf
    (_, text), *_ = figures.of_align(Report(typed(raw, AlignDocument), ""), "a")
    assert "inf" not in text.replace("info", "")
    assert of_bench(caches=("f16",)) == []
    empty = {**without_arguments(sampling_result()), "rows": []}
    assert figures.of_sampling(typed(empty, sampling.Result), "s") == []
    assert figures.of_align(Report(typed({**raw, "cases": []}, AlignDocument), ""), "a") == []
