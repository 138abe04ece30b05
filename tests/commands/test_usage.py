"""Wrong usage has one style: a sentence, what to type next, and exit code 2; commands to paste have no placeholders."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from qlutattn_patch.commands import main


@pytest.mark.parametrize(
    ("argv", "cause", "hint"),
    [
        (["biuld"], "There is no command 'biuld'.", "did you mean build?"),
        (["zzz"], "There is no command 'zzz'.", "qlutattn --help"),
        (["build", "--job", "2"], "There is no option --job.", "did you mean --jobs?"),
        (["--colour", "never"], "There is no option --colour.", "did you mean --color?"),
        (["build", "--preset", "nativ"], "--preset: 'nativ' is not one of 'native',", "did you mean native?"),
        (["build", "--jobs", "x"], "--jobs: 'x' is not a valid integer range.", "qlutattn build --help"),
        (["matrix", "--shard", "x"], "--shard: 'x' is not a shard such as 2/4", "qlutattn matrix --help"),
        (["eval"], "Missing option '--model'", "qlutattn eval --help"),
        (["profile"], "Missing argument 'TOOL...'.", "qlutattn profile --help"),
        (["bench", "--types", "K4V5"], "--types: 'K4V5' is not a cache; names are such as", "did you mean K4V8?"),
        (["bench", "--plot", "/nowhere/a.svg"], "--plot: there is no folder /nowhere.", "mkdir -p /nowhere"),
        (["align", "--junit", "/nowhere/a.xml"], "--junit: there is no folder /nowhere.", "mkdir -p /nowhere"),
        (["vendor", "--from", "/nowhere"], "There is no file or folder /nowhere.", "name a git checkout,"),
        (["profile", "--", "-m"], "'-m' is not the name of a tool of llama.cpp.", "qlutattn profile --help"),
    ],
)
def test_wrong_usage_has_one_style(argv: list[str], cause: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.startswith(f"error: {cause}")
    assert first.endswith(".")
    assert second.startswith(f"  next: {hint}")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named_with_its_path() -> None:
    argv = [sys.executable, "-m", "qlutattn_patch", "types"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(argv, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith("error: standard output cannot be read or written: No space left on device.\n")
    assert "Traceback" not in done.stderr


# names that stand for something else: M.gguf, DIR, <those files>, and what is left out
_PLACEHOLDER = re.compile(r"\b[MT]\.(?:gguf|txt)\b|\b(?:PATH|DIR|FILE|VERSION|COMMIT|PRESET)\b|<[a-z][\w ]*>|…|\.\.\.")
_COMMAND = re.compile(r"\b(?:qlutattn [a-z]|git -C|make -C|python -m|mkdir )")


def hints(path: Path) -> list[tuple[int, str]]:
    """What a module says to type next; what is filled in is X."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = getattr(getattr(node, "func", None), "id", "")
        if isinstance(node, ast.Call) and (name.endswith("Error") or name in ("SourceUnavailable", "Stale", "refuse")):
            found += [(arg.lineno, text(arg)) for arg in (*node.args[1:], *(word.value for word in node.keywords))]
        elif isinstance(node, ast.Assign) or (isinstance(node, ast.Return) and node.value is not None):
            found.append((node.lineno, text(node.value)))
    return found


def text(node: ast.expr) -> str:
    """A string, with X for what is filled in."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) and isinstance(part.value, str) else "X" for part in parts
    )


def test_commands_to_paste_have_no_placeholders() -> None:
    package = ROOT / "qlutattn_patch"
    found = [
        f"{path.relative_to(ROOT)}:{line}: {hint}"
        for path in sorted(package.rglob("*.py"))
        for line, hint in hints(path)
        if _COMMAND.search(hint) and _PLACEHOLDER.search(hint)
    ]
    assert found == []
    assert sum(len(hints(path)) for path in package.rglob("*.py")) > 100
    assert _PLACEHOLDER.search("qlutattn eval --model M.gguf")


def test_make_run_installs_what_plots_need() -> None:
    """`bench --plot` works after `make run`."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    rule = makefile.partition("$(VENV)/.installed: ")[2].partition("\n\n")[0]
    assert "pip install" in rule
    assert "-e '.[plot]'" in rule
