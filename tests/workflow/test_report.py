"""The report shows what is stored, escapes it, says what repeats it, stands alone, and is whole in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser

import browser
import pytest
from browser import Look
from helpers import snapshot
from report_results import align_result, bench_result, eval_result, put_build, sampling_result

from qlutattn_patch.building import doctor, results
from qlutattn_patch.building.doctor import Finding
from qlutattn_patch.commands import main
from qlutattn_patch.workflow import figures, report
from qlutattn_patch.workspace import Workspace

VOID = {"meta", "link", "br", "img", "input", "hr"}
PARAMETERS = ("src", "href", "xlink:href", "action", "data", "poster", "srcset")


class Page(HTMLParser):
    """The elements of a page; whether each is closed where it should be, its links, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.said: list[str] = []
        self.names: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in PARAMETERS]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).split())


@pytest.fixture
def workspace(project, monkeypatch):
    """A project on a machine whose tools need not be searched for."""
    tools = (Finding("ninja >= 1.10", "building", True, True, __file__, "1.11"),)
    monkeypatch.setattr(doctor, "examine", lambda _: doctor.Report(tools, "x86_64", ("avx2", "fma")))
    return project.workspace


def fill(workspace, **more):
    put_build(workspace)
    found = {"align": align_result(), "bench": bench_result(), "sampling": sampling_result(), "eval": eval_result()}
    for kind, result in (found | more).items():
        results.keep(workspace, "native", kind, result)


def test_without_results_it_says_what_makes_them(workspace):
    page = Page(report.render(workspace))
    for command in results.COMMANDS.values():
        assert f"This makes one: {' '.join(['qlutattn', *command])}" in page.text
    assert page.text.count("There is no result yet.") == len(report.KINDS)
    assert "svg" not in page.names
    assert "clean" in page.text
    assert "avx2 fma" in page.text
    assert "ninja 1.11" in page.text


def test_a_tree_that_is_not_there_yet_is_no_reason_to_fail(workspace):
    fill(workspace)
    shutil.rmtree(workspace.tree)
    page = Page(report.render(workspace))
    assert f"{workspace.tree} absent" in page.text
    assert "PASS 64 cases passed" in page.text


def test_it_shows_every_result_and_what_repeats_it(workspace):
    fill(workspace)
    page = Page(report.render(workspace))
    for said in (
        "PASS 64 cases passed, 0 failed",
        "K4V4: 4 × f16 (decode, 8192 keys, 2 threads)",
        "10 to 20 × llama.cpp's own code; 0 of 640 tokens differ",
        "3 caches; K4V4+w128+s128: mean KL divergence 0.0004, same top 98.9 %",
        "qlutattn align --preset native",
        "qlutattn bench --preset native --work decode",
        "qlutattn bench --preset native --work sampling",
        "qlutattn eval --preset native --model M.gguf --text T.txt",
        "/usr/bin/c++ (gcc 12), Release",
    ):
        assert said in page.text, said
    assert "no result yet" not in page.text
    assert {*report.KINDS, "origin", "machine"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert "busy" not in page.text
    if figures.is_available():
        assert page.names.count("svg") == 7


def test_what_is_inserted_is_escaped(workspace, monkeypatch):
    evil = "<script>alert('1')</script>"
    monkeypatch.setattr("qlutattn_patch.system.cpu.cpu_name", lambda: evil)
    fill(workspace, eval=eval_result(evil), bench=bench_result(caches=("f16", evil, "K4V4")))
    text = report.render(workspace)
    assert "<script" not in text
    assert evil in Page(text).text


def test_the_page_stands_alone(workspace):
    fill(workspace)
    page = Page(report.render(workspace))
    assert page.links
    assert all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert not {"script", "link", "img", "iframe"} & set(page.names)
    assert "@import" not in report.render(workspace)


def test_a_failure_and_what_is_out_of_date_are_seen(workspace):
    fill(workspace, align=align_result(failed=True), sampling=sampling_result(different=2))
    (workspace.build_dir("native") / "bin" / "bench_attn").write_bytes(b"another")
    text = report.render(workspace)
    page = Page(text)
    assert '<span class="bad">failed</span>' in text
    assert "FAIL 63 cases passed, 1 failed" in page.text
    assert "align_attn: <b>too far</b>" in page.text
    assert "16 of 640 tokens differ" in page.text
    assert "Out of date: it is of another build" in page.text
    assert "Stale: tree -> native: bench_attn" in page.text
    assert "This repairs it: qlutattn generate && qlutattn apply && qlutattn build" in page.text


def test_busy_machines_and_partial_runs_are_said(workspace):
    fill(workspace, bench=bench_result(spread=0.4))
    results.keep(workspace, "native", results.EVAL, eval_result(), part=True)
    fresh = report.render(workspace)
    assert "The machine was busy: the times of 64 of 64 rows" in fresh
    results.file_of(workspace.build_dir("native"), results.EVAL).unlink()
    results.keep(workspace, "native", results.EVAL, eval_result(), part=True)
    assert "partial run" in report.render(workspace)


def test_what_another_version_stored_is_named_and_the_rest_is_shown(workspace):
    fill(workspace, bench={"arguments": ["--cold"], "rows": [{"old": 1}]})
    page = Page(report.render(workspace))
    assert "Another version of qlutattn has stored this result" in page.text
    assert "qlutattn bench --preset native --cold" in page.text
    assert "PASS 64 cases" in page.text


def test_without_matplotlib_there_are_tables(workspace, monkeypatch):
    monkeypatch.setattr(figures, "is_available", lambda: False)
    fill(workspace)
    page = Page(report.render(workspace))
    assert "svg" not in page.names
    assert page.names.count("table") == len(report.KINDS) + 1  # and that of programs
    assert "python -m pip install matplotlib" in page.text


def test_the_command_writes_a_file_and_nothing_else(workspace, monkeypatch, capsys, tmp_path):
    find = Workspace.find.__func__
    monkeypatch.setattr(Workspace, "find", classmethod(lambda cls, tree=None: find(cls, tree, workspace.root)))
    fill(workspace)
    before = snapshot(workspace.root)
    path = tmp_path / "page.html"
    assert main.run(["report", "--output", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert {name for name in before.keys() ^ snapshot(workspace.root).keys() if not name.endswith("lock")} == set()
    assert main.run(["report", "--output", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "command": "report", "ok": True, "path": str(path)}
    assert main.run(["report", "--output", str(tmp_path / "none" / "page.html")]) == 3
    assert f"There is no folder {tmp_path / 'none'} to write the report to." in capsys.readouterr().err
    assert main.run(["report", "--output", str(tmp_path)]) == 3
    assert f"{tmp_path} is a folder." in capsys.readouterr().err


# --- in a browser


LOOKS = [Look(1200), Look(1200, dark=True), Look(920), Look(360), Look(360, dark=True)]


@pytest.mark.slow
@pytest.mark.skipif(browser.BROWSER is None, reason=browser.WHY_NOT)
@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
def test_nothing_is_cut_off_in_a_browser(look, workspace, tmp_path):
    fill(workspace, align=align_result(failed=True))
    text = report.render(workspace)
    found = browser.measure(text, look, tmp_path)
    assert found["inner_width"] == look.width
    assert found["scroll_width"] <= look.width
    assert (found["beyond"], found["cut"]) == ([], [])
    paper, ink = (sum(map(int, re.findall(r"\d+", found[name])[:3])) for name in ("paper", "ink"))
    assert (paper < ink) == look.dark
    if figures.is_available():
        assert found["drawn"] == found["ink"]
    assert browser.picture(text, look, tmp_path, found["height"]).stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.skipif(browser.BROWSER is None, reason=browser.WHY_NOT)
def test_the_browser_notices_what_is_cut_off(tmp_path):
    wide = (
        "<!DOCTYPE html><body><div style='width: 900px'>wide</div><p style='overflow: hidden; width: 9px'>longword</p>"
    )
    found = browser.measure(wide, Look(360), tmp_path)
    assert found["scroll_width"] > 360
    assert found["beyond"] == ["DIV wide"]
    assert found["cut"] == ["P longword"]
