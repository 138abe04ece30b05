"""Whatever a file-system call answers, a command leaves one of the right states, says so, and the next one goes on."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import effort
import faults
import pytest
from faults import FULL, KILL, Call, Outcome
from helpers import ROOT, Project, assemble, edit, git, make_tar, make_upstream, snapshot, write_pin

from qlutattn_patch.commands import main
from qlutattn_patch.patches.generate import generate
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.system import lock
from qlutattn_patch.tree.vendor import vendor
from qlutattn_patch.tree.worktree import apply
from qlutattn_patch.workspace import Workspace, cache_dir

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 11) or not Path("/proc/self/fd").is_dir(),
    reason="an older pathlib holds on to functions of os from before; the name of an open file is read from /proc",
)
ERRORS = (FULL, "EIO", "EACCES")
SAMPLE, LONG_SAMPLE = 11, 41  # of so many calls one fails (in long commands); all of them with --thorough
RECEIPT = "vendor/llama.cpp/.git/qlutattn/receipt.json"

UPSTREAM = {
    "CMakeLists.txt": "project(llama.cpp)\n",
    "ggml/include/ggml.h": "enum ggml_type {\n    GGML_TYPE_F32   = 0,\n    GGML_TYPE_COUNT = 43,\n};\n",
    "ggml/src/ggml.c": '#include "ggml.h"\n',
}
TYPES_TOML = """\
subject = "ggml: add the types"
why = "w"
not_a_new_file = "n"
until = "u"
overlay = ["neu/ä.sh"]

[[hook]]
file = "ggml/src/ggml.c"
anchor = "#include"
place = "before"
text = "// first\\n"
"""


def small_project(folder: Path) -> Project:
    """As small as one can be in which a file changes and one comes in a new folder, its patches made."""
    upstream = make_upstream(folder / "up stream", UPSTREAM, alone=True)
    project = assemble(folder, upstream, {"neu/ä.sh": "#!/bin/sh\n"}, {"series": "types\n", "types.toml": TYPES_TOML})
    shutil.rmtree(project.tree)
    vendor(project.workspace, upstream)
    generate(project.workspace, project.repository).write()
    return project


def do_apply(project: Project) -> None:
    apply(project.workspace, load_series(project.workspace.patches))


def archive(project: Project) -> str:
    members = {f"x/{name}": data for name, (data, _) in snapshot(project.upstream).items()}
    return str(make_tar(project.root.parent / "x.tar.gz", members))


# What stands before each command, and how it is called: a command more is a line more.


def vendor_first(project: Project) -> list[str]:
    shutil.rmtree(project.tree)
    return ["vendor", "--from", archive(project)]


def vendor_at_another_pin(project: Project) -> list[str]:
    do_apply(project)
    edit(project.upstream / "CMakeLists.txt", "project", "# newer\nproject")
    git(project.upstream, "commit", "--quiet", "--all", "-m", "newer")
    write_pin(project.root, project.upstream)
    return ["vendor", "--from", str(project.upstream)]


def apply_first(project: Project) -> list[str]:
    return ["apply"]


def apply_a_changed_series(project: Project) -> list[str]:
    do_apply(project)
    templates = project.workspace.templates
    edit(templates / "hooks" / "types.toml", "neu/ä.sh", "neuer/b.c")
    edit(templates / "hooks" / "types.toml", "// first", "// other")
    (templates / "overlay/neu").rename(templates / "overlay/neuer")
    (templates / "overlay/neuer/ä.sh").rename(templates / "overlay/neuer/b.c")
    generate(project.workspace, project.repository).write()
    return ["apply"]


def revert_applied(project: Project) -> list[str]:
    do_apply(project)
    return ["revert"]


SCENARIOS = (vendor_first, vendor_at_another_pin, apply_first, apply_a_changed_series, revert_applied)


@dataclass
class Sweep:
    """A command that is run again and again from one start, each time with another fault; what was wrong is kept."""

    workspace: Workspace
    argv: list[str]
    below: tuple[Path, ...]
    right: list[dict[str, object]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    strikes: int = 0
    _start: dict[Path, tuple[int, bytes | None]] = field(default_factory=dict)
    _judged: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        main.group.get_command(None, self.argv[0])  # imported here, and not in every child  # type: ignore[arg-type]
        main.group.get_command(None, "status")  # type: ignore[arg-type]
        self._start = self._everything()
        self.right.append(self.state())

    def run(self, *argv: str, nth: int = 0, kind: str = "") -> Outcome:
        return faults.run(lambda: main.run(list(argv or self.argv)), self.below, nth, kind)

    def dry(self) -> tuple[Call, ...]:
        """The calls that the command makes when none fails; what it leaves is right."""
        outcome = self.run()
        assert outcome.code == 0, outcome.said
        self.right.append(self.state())
        self.restore()
        return outcome.calls

    def over(self, calls: tuple[Call, ...], taking_turns: bool = False, every: int = SAMPLE) -> None:
        """Strike at every call, or at a sample of them.

        What changes the project fails in every way (or in one, `taking_turns`), and is the last. Of the rest each
        fails once, the ways taking turns: a kill there leaves what one at the next change leaves, and a read that
        comes again from the same lines is the same one.
        """
        seen = set()
        for nth, call in effort.sample([*enumerate(calls, 1)], every):
            if call.is_read:
                # EACCES from flock is what some systems say of a lock that is held: a command would wait
                kind = "EIO" if call.what == "flock" else ERRORS[1 + nth % 2]
                kinds = (kind,) if (call.what, call.site) not in seen else ()
                seen.add((call.what, call.site))
            elif self.is_change(call):
                in_turn = taking_turns or not effort.thorough
                kinds = (ERRORS[nth % len(ERRORS)], KILL) if in_turn else (*ERRORS, KILL)
            else:
                kinds = (ERRORS[nth % len(ERRORS)],)
            for kind in kinds:
                self.strike(nth, call, kind)

    def is_change(self, call: Call) -> bool:
        """Whether a call changes the project, and not what is read from it or what is temporary."""
        return not call.is_read and call.path.startswith(str(self.workspace.root))

    def strike(self, nth: int, call: Call, kind: str) -> None:
        """Run the command with a fault at its nth call."""
        self.judge(self.run(nth=nth, kind=kind), f"{kind} at call {nth}, {call.what} {call.path}", kind)

    def judge(self, outcome: Outcome, where: str, kind: str) -> None:
        """How a command ended that something happened to: it says so, and what it leaves is one of the right states."""
        self.strikes += 1
        if outcome.code is None:
            if kind != KILL:
                self.wrong.append(f"{where}: it was killed")
        elif outcome.code == 0:
            if self.state() != self.right[-1]:
                self.wrong.append(f"{where}: it says that all is well, and it is not: {self._differences()}")
        elif outcome.code != 3 or not _is_told(outcome.said):
            self.wrong.append(f"{where}: exit code {outcome.code}, {outcome.said}")
        now = self._everything()
        if now == self._start:
            return
        digest = hash(tuple(now.items()))
        if digest not in self._judged:
            self._judged.add(digest)
            self._judge_state(where, kind)
        self.restore()

    def _judge_state(self, where: str, kind: str) -> None:
        if self.state() not in self.right and not (kind in (KILL, FULL) and self._is_unfinished()):
            self.wrong.append(f"{where}: this is neither before nor after: {self._differences()}")
        status = self.run("status")
        again = self.run()
        if (status.code, again.code) != (0, 0):
            self.wrong.append(f"{where}: the next command fails: {status.said} {again.said}")
        elif self.state() != self.right[-1]:
            self.wrong.append(f"{where}: the next command does not fix it: {self._differences()}")
        left = [str(path) for path in self.workspace.root.rglob("*") if _is_temporary(path)]
        if left:
            self.wrong.append(f"{where}: the next command leaves {', '.join(left)}")

    def _is_unfinished(self) -> bool:
        """Whether the next command will know that something is to be finished."""
        vendor_folder = self.workspace.tree.parent
        journals = (self.workspace.tree / ".git/qlutattn/txn/journal.json", vendor_folder / ".rebase/txn/journal.json")
        replaced = not self.workspace.tree.exists() and any(vendor_folder.glob(".old-*"))
        return replaced or any(journal.exists() for journal in journals)

    def state(self) -> dict[str, object]:
        """What a user sees: the project and the tree in it, HEAD, and the receipt."""
        seen: dict[str, object] = {
            name: what for name, what in snapshot(self.workspace.root).items() if not _is_state(name)
        }
        git_dir = self.workspace.tree / ".git"
        for name in ("HEAD", "refs/heads/base", "qlutattn/receipt.json"):
            if (git_dir / name).exists():
                seen[f"vendor/llama.cpp/.git/{name}"] = (git_dir / name).read_bytes()
        return seen

    def _differences(self) -> str:
        now, before, after = self.state(), self.right[0], self.right[-1]
        names = sorted({*now, *before, *after})
        said = []
        for name in names:
            if now.get(name) not in (before.get(name), after.get(name)):
                said.append(f"{name} (neither)")
            elif before.get(name) != after.get(name):
                said.append(f"{name} ({'as before' if now.get(name) == before.get(name) else 'as after'})")
        return ", ".join(said)

    def restore(self) -> None:
        """Put back what is not as it was at the start."""
        now = self._everything()
        for path in sorted(now.keys() - self._start.keys(), reverse=True):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()
        for path, (mode, data) in self._start.items():
            if now.get(path) == (mode, data):
                continue
            if data is None:
                path.mkdir()
            else:
                path.write_bytes(data)
            path.chmod(mode)

    def _everything(self) -> dict[Path, tuple[int, bytes | None]]:
        """Every file and folder: its mode and contents; of a link, where it leads."""
        return {
            path: (stat.S_IMODE(path.lstat().st_mode), _contents(path))
            for path in sorted(self.workspace.root.rglob("*"))
        }


def _contents(path: Path) -> bytes | None:
    if path.is_symlink():
        return os.fsencode(path.readlink())
    return None if path.is_dir() else path.read_bytes()


def _is_state(name: str) -> bool:
    """Whether a file of the project is none that a user looks at: git's, locks, and what is being made."""
    return name.startswith((".git/", "vendor/llama.cpp/.git/", "vendor/.")) or name.endswith("lock")


def _is_temporary(path: Path) -> bool:
    return path.name.endswith((".new", ".qlutattn")) or path.name.startswith((".new-", ".old-")) or path.name == "txn"


def _is_told(said: str) -> bool:
    """One sentence and what to do next, and nothing of Python's."""
    lines = said.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return len(errors) == 1 and lines[-1].startswith("  next: ") and "Traceback" not in said


@pytest.fixture
def set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Project], tuple[Path, ...]]:
    """Make the commands work on a project, with temporary files where they are counted; returns the folders."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(lock, "PATIENCE", 0.2)

    def on(project: Project) -> tuple[Path, ...]:
        monkeypatch.setattr(Workspace, "find", classmethod(lambda cls, tree=None, start=None: project.workspace))
        return (project.root, tmp_path / "tmp", cache_dir())

    return on


@pytest.mark.nightly
@pytest.mark.parametrize("prepare", SCENARIOS)
def test_every_call_of_a_command_can_fail_or_be_its_last(tmp_path, set_up, prepare):
    project = small_project(tmp_path)
    argv = prepare(project)
    sweep = Sweep(project.workspace, argv, set_up(project))
    sweep.over(sweep.dry(), taking_turns=prepare in (vendor_at_another_pin, apply_a_changed_series))
    assert sweep.wrong == []
    assert sweep.strikes > effort.most(5, 100)


@pytest.mark.nightly
def test_every_call_of_rebase_can_fail_or_be_its_last(pinned_project, set_up):
    """The project moves in one step, then the tree follows: from the old release to the new one, to the patched one."""
    sweep = Sweep(pinned_project.workspace, ["rebase", "0.2"], set_up(pinned_project))
    sweep.dry()  # what the stages say of the release is remembered from now on
    before, after = sweep.right
    sweep.run()
    sweep.run("revert")
    pristine = sweep.state()
    sweep.restore()
    followed = {name: (before if name.startswith("vendor/llama.cpp/") else after).get(name) for name in before | after}
    sweep.right = [before, {name: what for name, what in followed.items() if what is not None}, pristine]
    calls = sweep.dry()
    last = max(nth for nth, call in enumerate(calls, 1) if "/.rebase/txn" in call.path)
    # what follows is vendor and apply, which are swept by themselves
    changes = [(nth, call) for nth, call in enumerate(calls, 1) if nth <= last and sweep.is_change(call)]
    for nth, call in effort.sample(changes, 2 * SAMPLE):
        sweep.strike(nth, call, ERRORS[nth % len(ERRORS)])
        sweep.strike(nth, call, KILL)
    others = [(nth, call) for nth, call in enumerate(calls, 1) if (nth, call) not in changes and nth % 20 == 0]
    for nth, call in effort.sample(others, SAMPLE):
        sweep.strike(nth, call, "EIO" if call.is_read else (*ERRORS, KILL)[nth // 20 % 4])
    assert sweep.wrong == []
    assert sweep.strikes > effort.most(5, 100)


@pytest.mark.nightly
def test_every_call_of_export_can_fail_or_be_its_last(tmp_path, set_up):
    """The templates and the patches change in one step, then the tree's receipt follows."""
    project = small_project(tmp_path)
    do_apply(project)
    edit(project.tree / "ggml/src/ggml.c", "// first", "// 1")
    edit(project.tree / "neu/ä.sh", "#!/bin/sh\n", "#!/bin/sh\nexit 1\n")
    sweep = Sweep(project.workspace, ["export"], set_up(project))
    calls = sweep.dry()
    before, after = sweep.right
    sweep.right = [before, {**after, RECEIPT: before[RECEIPT]}, after]
    sweep.over(calls, taking_turns=True, every=LONG_SAMPLE)
    assert sweep.wrong == []
    assert sweep.strikes > effort.most(5, 100)


# --- inside git


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is preloaded into git."""
    made = tmp_path_factory.mktemp("lib") / "git_faults.so"
    source = ROOT / "tests" / "native" / "git_faults.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", made, source, "-ldl"], check=True)
    return made


@pytest.mark.nightly
@pytest.mark.compiler
@pytest.mark.xdist_group("faults in git")
@pytest.mark.parametrize("prepare", [vendor_first, apply_first])
def test_every_change_that_git_makes_can_fail_or_be_its_last(tmp_path, set_up, library, monkeypatch, prepare):
    project = small_project(tmp_path)
    sweep = Sweep(project.workspace, prepare(project), set_up(project))
    count = tmp_path / "count"

    def struck(nth: int, number: int) -> Outcome:
        count.unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            for name, value in (("COUNT", count), ("NTH", nth), ("ERRNO", number)):
                patch.setenv(f"FAULTS_{name}", str(value))
            patch.setenv("LD_PRELOAD", str(library))
            return sweep.run()

    assert struck(0, 0).code == 0
    sweep.right.append(sweep.state())
    sweep.restore()
    calls = count.stat().st_size
    assert calls > 50
    for nth in effort.sample(range(1, calls + 1), SAMPLE):
        kind = (*ERRORS, KILL)[nth % 4]
        sweep.judge(struck(nth, faults.KINDS[kind]), f"{kind} at git's change {nth}", kind)
    assert sweep.wrong == []
