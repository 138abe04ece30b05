"""`qlutattn align`: what is made of what align_attn does."""

from __future__ import annotations

import json
import shlex
import xml.etree.ElementTree as ET

import fake_tools
import numpy as np
import pytest
from align_helpers import PAIRS, dump_case, write_dump
from helpers import Project, edit

from qlutattn_patch.building.origin import read_origin
from qlutattn_patch.building.stamp import Stamp, built_now
from qlutattn_patch.commands import main
from qlutattn_patch.proof.align import align, exactly, load_fresh
from qlutattn_patch.proof.junit import junit
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.workspace import Workspace

FACTS = {"C++ compiler": "c++"}


class FakeAlign:
    """A program in the place of align_attn that leaves prepared results."""

    def __init__(self, workspace: Workspace, preset: str = "native") -> None:
        self.workspace = workspace
        self.bin = workspace.build_dir(preset) / "bin"
        self.bin.mkdir(parents=True)
        self.cases = [dump_case(k, v) for k, v in PAIRS]
        self.results = [
            {"id": case["id"], "type_k": case["type_k"], "type_v": case["type_v"], "n_q": 3, "n_kv_packed": 128,
             "n_kv_f16": 5, "heads_per_group": 2, "head_dim": 128, "kernel": "lut", "nmse_codes": 1e-5,
             "nmse_f32": 0.1, "max_abs_err": 0.001, "tolerance": 0.01, "ok": True}
            for case in self.cases
        ]  # fmt: skip
        self.make()

    def make(self, ending: str = "sys.exit(0)", json_text: str | None = None, dump: bool = True) -> None:
        """Write the program; `ending` is what it does last."""
        failed = sum(not case["ok"] for case in self.results)
        unknown = ("templates", "tree", "ggml", "compiler", "flags", "kernel_flags", "build_type", "isa")
        build = {**dict.fromkeys(unknown), "upstream": "0123", "series": "4567" * 16, "cpu": "A CPU"}
        own = {
            "schema": 1,
            "ok": not failed,
            "isa": ["AVX2"],
            "build": build,
            "passed": len(self.results) - failed,
            "failed": failed,
        }
        prepared = self.bin / "prepared"
        prepared.mkdir(exist_ok=True)
        text = json.dumps({**own, "cases": self.results}) if json_text is None else json_text
        (prepared / "json").write_text(text, encoding="utf-8")
        write_dump(prepared / "dump", self.cases)
        names = ["json", "dump"] if dump else ["json"]
        fake_tools.write_program(
            self.bin / "align_attn",
            "import os, pathlib, shutil, signal, sys\n"
            "here = pathlib.Path(__file__).parent\n"
            "(here / 'argv').write_text('\\n'.join(sys.argv[1:]))\n"
            "print('[1/9] a case', flush=True)\n"
            f"for name in {names}:\n"
            "    shutil.copy(here / 'prepared' / name, sys.argv[sys.argv.index('--' + name) + 1])\n"
            f"print('the last words', flush=True)\n{ending}\n",
        )
        self.stamp()

    def stamp(self) -> None:
        """Record it as built from the tree as it is."""
        (self.workspace.tree / "tools" / "align-attn").mkdir(parents=True, exist_ok=True)
        targets = {"align_attn": built_now(self.bin, "align_attn", FACTS, read_origin(self.workspace))}
        Stamp(FACTS, targets).write(self.bin.parent)


@pytest.fixture
def fake(project: Project) -> FakeAlign:
    return FakeAlign(project.workspace)


def run(project: Project, monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr(Workspace, "find", classmethod(lambda cls, tree=None: project.workspace))
    return main.run(["align", *args])


def test_pass(
    project: Project, fake: FakeAlign, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(project, monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["K", "V", "kernel", "cases"]
    assert [line.split()[:4] for line in lines[1 : 1 + len(PAIRS)]] == [
        [f"k{k}", f"v{v}", "lut", "1"] for k, v in PAIRS
    ]
    assert lines[1 + len(PAIRS) :] == ["PASS  16 cases passed, 0 failed; numpy checked 16 of them"]
    assert not list(fake.bin.parent.glob("align-*")), "the results stay behind"


def test_json(
    project: Project, fake: FakeAlign, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.results[3]["nmse_codes"] = None
    fake.make()
    assert run(project, monkeypatch, "--json") == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    expected = {"schema": 1, "ok": True, "preset": "native", "isa": ["AVX2"], "passed": 16, "failed": 0}
    assert {key: found[key] for key in expected} == expected
    assert (found["upstream"], found["series"], found["build"]["cpu"]) == ("0123", "4567" * 16, "A CPU")
    for case, own in zip(found["cases"], fake.results, strict=True):
        assert own.items() <= case.items()
        assert case["numpy"]["wrong"] == []
        assert sum(case["numpy"]["tiles"].values()) == 4


def test_numbers_that_json_does_not_have_are_null(
    project: Project, fake: FakeAlign, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.cases[3]["out"][0, 2, 3, 77] = np.inf
    fake.make()
    assert run(project, monkeypatch, "--json") == 1
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["cases"][3]["numpy"]["error_over_tolerance"] is None
    assert load_fresh(project.workspace, "native", quick=True) is None


def test_a_wrong_tile_fails_the_case(
    project: Project, fake: FakeAlign, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.cases[4]["kp"].view(np.uint8)[5] ^= 1
    fake.make()
    name = fake.cases[4]["id"]
    assert run(project, monkeypatch, "--junit", str(fake.bin / "ü.xml")) == 1
    out = capsys.readouterr().out
    assert f"FAILED {name}\n  numpy: qlutattn_k2_128x128: 1 bytes differ" in out
    assert f"repeat: qlutattn align --preset native --filter '^{name}$'" in out
    assert out.splitlines()[-1].startswith("FAIL  15 cases passed, 1 failed")
    suite = ET.parse(fake.bin / "ü.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("16", "1")
    assert [test.get("name") for test in suite if len(test)] == [name]


def test_align_attns_own_failure(
    project: Project, fake: FakeAlign, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.results[2] |= {"ok": False, "faults": ["codes: query 3 is off"]}
    fake.make("sys.exit(1)")
    assert run(project, monkeypatch) == 1
    out = capsys.readouterr().out
    assert f"FAILED {fake.cases[2]['id']}\n  align_attn: codes: query 3 is off" in out


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was killed by the signal SIGSEGV"),
        ("sys.exit(134)", "was killed by the signal SIGABRT"),
        ("sys.exit(3)", "stopped with exit status 3"),
        ("sys.exit(1)", "contradicts itself"),
    ],
)
def test_a_bad_ending_is_a_failure(
    ending: str, said: str, project: Project, fake: FakeAlign, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    fake.make(ending)
    assert run(project, monkeypatch) == 1
    captured = capsys.readouterr()
    assert said in captured.out.splitlines()[-1]
    assert captured.out.splitlines()[-1].startswith("FAIL")
    assert ("the last words" in captured.err) == ("contradicts" not in said)
    report = align(project.workspace, "native")
    assert (report.ok, report.document.ok) == (False, False)
    assert b'failures="1"' in junit(report)


def test_results_that_are_missing_are_a_failure(project: Project, fake: FakeAlign) -> None:
    for text in ("", "[]", '{"schema": 2, "cases": []}', '{"schema": 1, "cases": [{"id": 3, "ok": true}]}'):
        fake.make(json_text=text)
        assert "left no results" in align(project.workspace, "native").verdict()
    fake.results[0]["colour"] = "red"
    fake.make()
    said = align(project.workspace, "native").verdict()
    assert "Object contains unknown field `colour` - at `$.cases[0]`" in said
    del fake.results[0]["colour"]
    fake.make(dump=False)
    assert "wrote no dump" in align(project.workspace, "native").verdict()
    (fake.bin / "prepared" / "dump").write_bytes(b"no")
    program = fake.bin / "align_attn"
    program.write_text(program.read_text().replace("['json']", "['json', 'dump']"))
    fake.stamp()
    assert "the dump cannot be checked" in align(project.workspace, "native").verdict()


def test_a_dump_that_leaves_out_a_type_is_a_failure(project: Project, fake: FakeAlign) -> None:
    fake.cases = [case for case in fake.cases if case["type_v"] != "qlutattn_v4_128x128"]
    fake.make()
    assert "the dump holds no tile of qlutattn_v4_128x128" in align(project.workspace, "native").verdict()
    assert align(project.workspace, "native", filter="k.v").ok
    fake.results = fake.results[1:]
    fake.make()
    assert "is missing from the results" in align(project.workspace, "native", filter="k.v").verdict()


def test_filter_is_passed_on(project: Project, fake: FakeAlign) -> None:
    align(project.workspace, "native", filter="k1v1 ü")
    assert (fake.bin / "argv").read_text().splitlines()[-2:] == ["--filter", "k1v1 ü"]


def test_a_filter_that_matches_nothing_says_so(
    project: Project, fake: FakeAlign, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.make("print('align_attn: no case matches'); sys.exit(2)")
    assert run(project, monkeypatch, "--filter", "zzz") == 2
    assert "align_attn: no case matches." in capsys.readouterr().err


def test_a_missing_build_names_the_next_command(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(project, monkeypatch, "--preset", "scalar") == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "There is no align_attn in" in captured.err
    assert "next: qlutattn build --preset scalar" in captured.err


def test_a_stale_align_attn_judges_nothing(
    project: Project, fake: FakeAlign, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(project.tree / "ggml/src/ggml.c", "return 3", "return 4")
    junit_file = project.root / "align.xml"
    assert run(project, monkeypatch, "--junit", str(junit_file)) == 1
    said = capsys.readouterr().out
    assert "is stale: files of the tree changed since align_attn was built; build it again: qlutattn build" in said
    assert said.splitlines()[-1].startswith("FAIL  0 cases passed")
    assert "is stale" in junit_file.read_text(encoding="utf-8")
    assert not (fake.bin / "argv").exists()
    fake.stamp()
    assert run(project, monkeypatch) == 0
    Stamp(FACTS, {}).write(fake.bin.parent)
    assert run(project, monkeypatch) == 1
    assert "it is unknown what it was built from" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "why"), [("no/align.xml", "there is no folder"), ("", "is a folder")])
def test_junit_into_nowhere_fails_before_the_run(
    name: str, why: str, project: Project, fake: FakeAlign, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(project, monkeypatch, "--junit", str(project.root / name)) == 2
    assert why in capsys.readouterr().err
    assert not (fake.bin / "argv").exists()


def test_a_users_own_checkout_is_named_in_the_commands(project: Project) -> None:
    own = Workspace(project.workspace.root, project.upstream)
    with pytest.raises(ExpectedError) as failure:
        align(own, "native")
    assert failure.value.hint == f"qlutattn build --preset native --tree {shlex.quote(str(project.upstream))}"
    fake = FakeAlign(own)
    fake.cases[0]["out"][0, 0, 0, 0] += 1
    fake.make()
    report = align(own, "native")
    assert f"--tree {shlex.quote(str(project.upstream))} --filter" in "\n".join(report.failures())
    assert (own.build_dir("native") / "qlutattn-align.json").is_file()


def test_whole_runs_are_kept_beside_their_build(project: Project, fake: FakeAlign) -> None:
    align(project.workspace, "native", filter="k.v")
    assert load_fresh(project.workspace, "native", quick=True) is None
    report = align(project.workspace, "native", quick=True)
    assert load_fresh(project.workspace, "native", quick=False) is None
    known = load_fresh(project.workspace, "native", quick=True)
    assert known is not None
    assert known[0] == report
    align(project.workspace, "native")
    assert load_fresh(project.workspace, "native", quick=False) is not None
    fake.make("sys.exit(1)")
    align(project.workspace, "native", quick=True)
    assert load_fresh(project.workspace, "native", quick=True) is None


def test_an_align_attn_that_does_not_know_says_so(project: Project, fake: FakeAlign) -> None:
    fake.make(json_text=json.dumps({"schema": 1, "ok": True, "isa": [], "cases": fake.results}))
    found = align(project.workspace, "native").document
    assert (found.upstream, found.series, found.build) == (None, None, None)


def test_exactly_matches_one_id() -> None:
    assert exactly("k1v1-t0.5(x)+a") == r"^k1v1-t0\.5\(x\)\+a$"


def test_junit_cases_have_their_class_and_time(project: Project, fake: FakeAlign) -> None:
    for number, case in enumerate(fake.results, 1):
        case["seconds"] = number / 4
    fake.cases[0]["out"][0, 0, 0, 0] += 1
    fake.make()
    report = align(project.workspace, "native")
    suite = ET.fromstring(junit(report))[0]
    cases = suite.findall("testcase")
    assert [float(case.attrib["time"]) for case in cases] == [number / 4 for number in range(1, len(cases) + 1)]
    assert float(suite.attrib["time"]) == sum(float(case.attrib["time"]) for case in cases)
    assert len({case.attrib["classname"] for case in cases}) == len(PAIRS)
    first = fake.results[0]
    k, v = (str(first[name]).removeprefix("qlutattn_").removesuffix("_128x128") for name in ("type_k", "type_v"))
    assert cases[0].attrib["classname"] == f"align_attn.native.{k}.{v}"
    [failure] = cases[0].findall("failure")
    assert failure.text is not None
    assert failure.text.splitlines()[-1].startswith("repeat: qlutattn align --preset native --filter ")
    assert suite.attrib["tests"] == str(len(cases))
    assert suite.attrib["failures"] == "1"
