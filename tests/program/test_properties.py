"""What holds for every project and every input: made up by hypothesis, the same examples on every machine."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from effort import examples
from helpers import FORMATS_MD, ROOT, Project, make_project, write_files
from hypothesis import assume, given
from hypothesis import strategies as st

from qlutattn_patch.commands import main
from qlutattn_patch.patches.generate import Generated, generate
from qlutattn_patch.patches.receipt import read_receipt
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.transaction import Transaction
from qlutattn_patch.templates.formats import load_formats
from qlutattn_patch.templates.render import Renderer
from qlutattn_patch.templates.spec import load_templates
from qlutattn_patch.tree.worktree import apply, revert
from qlutattn_patch.upstream import checkout
from qlutattn_patch.upstream.pin import load_pin
from qlutattn_patch.workspace import Workspace

pytestmark = pytest.mark.nightly


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here need outlive the machine."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


# --- made-up projects

NAMES = st.text("abä -_.\"'x7Z", min_size=1, max_size=5).map(lambda name: f"n{name}".rstrip(" ."))
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
LINE = st.text("abc{}#/ \tüß\\\"'", max_size=12).map(lambda text: f"{text}\n")
LINES = st.lists(LINE, max_size=6).map("".join)
LANDMARKS = {
    "CMakeLists.txt": "project(llama.cpp)\n",
    "ggml/include/ggml.h": "enum ggml_type {\n    GGML_TYPE_F32   = 0,\n    GGML_TYPE_COUNT = 43,\n};\n",
    "ggml/src/ggml.c": '#include "ggml.h"\nint one;\nint two;\nint three;\n',
}


@st.composite
def upstreams(draw: st.DrawFn) -> dict[str, str]:
    """The files of a tree that is taken for llama.cpp."""
    files = dict(LANDMARKS)
    for path, text in draw(st.dictionaries(PATHS, LINES, max_size=4)).items():
        files[f"up/{path}"] = draw(st.sampled_from(["", "#!/bin/sh\n"])) + text
    return _without_clashes(files)


@st.composite
def projects(draw: st.DrawFn) -> tuple[dict[str, str], dict[str, str], dict[str, str], dict[str, str]]:
    """Files of an upstream, overlay, hooks with their series, and ignored files of a user's in the tree."""
    upstream = draw(upstreams())
    anchors = [(file, line) for file, text in upstream.items() for line in _unique_lines(text)]
    added = draw(st.dictionaries(PATHS, LINES, max_size=4))
    new = _without_clashes({f"new/{path}": text or "a\n" for path, text in added.items()})
    hooks: dict[str, str] = {}
    overlay = list(new)
    order = draw(st.lists(st.sampled_from("pqrs"), unique=True, min_size=1, max_size=3))
    for number, name in enumerate(order):
        last = number == len(order) - 1
        mine = overlay if last else overlay[:1]
        overlay = overlay[len(mine) :]
        count = draw(st.integers(0 if mine else 1, 2))
        assume(len(anchors) >= count)
        edits = []
        for _ in range(count):
            file, anchor = anchors.pop(draw(st.integers(0, len(anchors) - 1)))
            place = draw(st.sampled_from(["after", "before", "replace"]))
            text = f"{name}{number} {draw(LINES)}\n".replace("{", "").replace("}", "").replace("#", "")
            edits.append(
                f"[[hook]]\nfile = {_toml(file)}\nanchor = {_toml(anchor)}\nplace = '{place}'\ntext = {_toml(text)}\n"
            )
        head = f"subject = 'ggml: {name}'\nwhy = 'w'\nnot_a_new_file = 'n'\nuntil = 'u'\noverlay = {_toml(mine)}\n"
        hooks[f"{name}.toml"] = head + "\n".join(edits)
    hooks["series"] = "".join(f"{name}\n" for name in order)
    users = {f"{path}.o": text for path, text in draw(st.dictionaries(PATHS, LINES, max_size=2)).items()}
    users |= {f"{Path(path).parent}/mine.o": "mine\n" for path in list(new)[: draw(st.integers(0, 1))]}
    return upstream, new, hooks, _without_clashes(users)


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _unique_lines(text: str) -> list[str]:
    """The lines that can be anchors: they are there once, also as a part of another one, and say something."""
    return [line for line in text.splitlines(keepends=True) if text.count(line) == 1 and line.strip()]


def _without_clashes(files: dict[str, str]) -> dict[str, str]:
    """Leave out what cannot be beside the others: a file where others need a folder."""
    folders = {str(folder) for path in files for folder in Path(path).parents}
    return {path: text for path, text in files.items() if path not in folders}


def put_together(folder: Path, made: tuple[dict[str, str], ...]) -> Project:
    upstream, overlay, hooks, users = made
    root = folder / "projekt ü"
    tree = root / "vendor" / "llama.cpp"
    write_files(root / "templates" / "overlay", overlay)
    (root / "templates" / "overlay").mkdir(parents=True, exist_ok=True)
    write_files(root / "templates" / "hooks", hooks)
    write_files(root / "docs", {"formats.md": FORMATS_MD})
    shutil.copy(ROOT / "templates" / "formats.toml", root / "templates")
    write_files(tree, upstream)
    repository, made_tree = checkout.add_all(tree)
    checkout.commit(repository, made_tree, "base\n")
    write_files(tree, {".git/info/exclude": "*.o\n", **users})  # not .gitignore: a hook may change that
    return Project(Workspace(root, tree), tree)


def everything(tree: Path) -> dict[str, tuple[int, bytes]]:
    """All of a tree, its index and HEAD too: modes and contents; not what qlutattn keeps for itself."""
    found = {}
    for path in sorted(tree.rglob("*")):
        name = path.relative_to(tree).as_posix()
        inside = name.startswith(".git/")
        if path.is_dir() or (inside and name not in (".git/index", ".git/HEAD", ".git/refs/heads/base")):
            continue
        found[name] = (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
    return found


class Folder:
    """A folder for one example."""

    def __enter__(self) -> Path:
        self.path = Path(tempfile.mkdtemp(prefix="beispiel "))
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path)


# --- apply, revert, generate


@examples(60)
@given(projects())
def test_apply_then_revert_is_identity(made):
    with Folder() as folder:
        project = put_together(folder, made)
        before = everything(project.tree)
        generated = generate(project.workspace, project.repository)
        generated.write()
        assert generated.drift() == []
        assert everything(project.tree) == before
        series = load_series(project.workspace.patches)
        assert series.digest == generated.series.digest
        assert apply(project.workspace, series) is True
        applied = everything(project.tree)
        assert {name: what for name, what in applied.items() if name in made[3]} == {
            name: what for name, what in before.items() if name in made[3]
        }
        assert applied != before
        assert applied[".git/index"] == before[".git/index"]
        assert revert(project.workspace) is True
        assert everything(project.tree) == before
        assert {path.name for path in (project.tree / ".git/qlutattn").iterdir()} == {"lock", "build.lock"}


def bytes_of(generated: Generated, root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): data for path, data in generated.files.items()}


@contextmanager
def elsewhere() -> Iterator[None]:
    """Another time zone and another language."""
    names = {"TZ": "Pacific/Chatham", "LANG": "de_DE.UTF-8", "LC_ALL": "C", "LC_TIME": "C.UTF-8", "LANGUAGE": "de"}
    before = dict(os.environ)
    os.environ.update(names)
    time.tzset()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        time.tzset()


@examples(10)
@given(projects(), st.data())
def test_generate_is_a_function_of_its_inputs(made, data):
    with Folder() as folder:
        first = put_together(folder / "one", made)
        turned = tuple(dict(reversed(files.items())) for files in made)
        second = put_together(folder / "größer" / "two two", turned)
        for path in second.root.rglob("*"):
            os.utime(path, (1, 1))
        one = bytes_of(generate(first.workspace, first.repository), first.root)
        with elsewhere():
            generated = generate(second.workspace, second.repository)
        assert bytes_of(generated, second.root) == one
        generated.write()
        assert generate(second.workspace, second.repository).drift() == []

        inputs = sorted(path for path in (second.root / "templates" / "hooks").glob("*.toml"))
        inputs += sorted(path for path in (second.root / "templates" / "overlay").rglob("*") if path.is_file())
        changed = data.draw(st.sampled_from(inputs))
        text = changed.read_text(encoding="utf-8")
        other = text.replace("why = 'w'", "why = 'w2'") if changed.suffix == ".toml" else f"{text}x\n"
        changed.write_text(other, "utf-8")
        assert generate(second.workspace, second.repository).drift() != []


# --- inputs that are not what they should be

ODD = st.sampled_from(
    [
        *("0", "-1", "99999999999999999999999", "9" * 5000, "0x" + "f" * 5000, "1e999", "nan", "inf", "true", "[]"),
        *('""', '" "', '"\\u0000"', '"../../x"', '"/etc/passwd"', '"a\\nb"', '".git/config"', '"\\u202e"', "{}"),
        *("[1, 'a']", "[[1]]", "[" * 3000 + "]" * 3000, "{a = {a = {a = 1}}}", '"{{ types.__class__ }}"', "'''", '"'),
        *(
            '"{% for a in types %}"',
            '"' + "a" * 300 + '"',
            "null",
            '"\\ud800"',
            "-0.0",
            "1979-05-27",
        ),
    ]
)
LOUD = (b"\0", b"\r\n", b"\xff\xfe", b"\n\n", b"[[hook]]\n", b"\n@@ -1 +1 @@", b"\ndiff --git ")
JUNK = st.binary(max_size=20) | st.sampled_from(LOUD)
WAYS = ("value", "value", "value", "junk", "junk", "cut", "line", "crlf", "twice", "any", "end")


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A way to spoil a file."""
    kind = draw(st.sampled_from(WAYS))
    part, length, junk, odd = draw(st.floats(0, 1)), draw(st.integers(0, 30)), draw(JUNK), draw(ODD)

    def spoil(data: bytes) -> bytes:
        at = int(part * len(data))
        lines = data.splitlines(keepends=True)
        line = min(int(part * len(lines)), len(lines) - 1)
        if kind == "value":
            mark = next((sign for sign in (b" = ", b": ", b",") if sign in lines[line]), b" ")
            head, sign, _ = lines[line].partition(mark)
            lines[line] = head + sign + odd.encode() + b"\n"
            return b"".join(lines)
        if kind == "line":
            return b"".join(lines[:line] + lines[line + 1 :])
        if kind == "twice":
            return b"".join(lines[: line + 1] + lines[line:])
        whole = {"junk": data[:at] + junk + data[at + length :], "cut": data[:at] + data[at + length :]}
        return {**whole, "crlf": data.replace(b"\n", b"\r\n"), "any": junk, "end": data[:at]}[kind]

    return spoil


def is_told(work: Callable[[], object]) -> None:
    """Work succeeds, or says in words what is wrong and what to do."""
    told = None
    try:
        work()
    except ExpectedError as failure:
        told = failure
    assert told is None or told.cause.strip()
    assert told is None or (told.hint or "").strip()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with everything in it that is read: its patches made and applied."""
    project = make_project(tmp_path_factory.mktemp("ganz") / "Größe 1")
    generate(project.workspace, project.repository).write()
    apply(project.workspace, load_series(project.workspace.patches))
    steps = [
        {"path": "a", "old": None, "new": hashlib.sha256(b"").hexdigest()},
        {"path": "b", "old": None, "new": None},
    ]
    journal = {"schema": 1, "direction": "forward", "steps": steps}
    write_files(project.root, {JOURNAL: json.dumps(journal, indent=1), f"{Path(JOURNAL).parent}/new/0": ""})
    return project


JOURNAL = "state/txn/journal.json"


def _read_patches(workspace: Workspace) -> None:
    for patch in load_series(workspace.patches).patches:
        assert patch.upstream_lines >= 0
        assert all(file.path is not None for file in patch.files)


def _recover(workspace: Workspace) -> None:
    with Folder() as folder:
        shutil.copytree(workspace.root / "state", folder / "state")
        Transaction(folder / "top", folder / "state", folder / "state" / "note").recover()


READERS: dict[str, Callable[[Workspace], object]] = {
    "templates/formats.toml": lambda it: load_formats(it.templates / "formats.toml"),
    "templates/hooks/types.toml": lambda it: load_templates(it.templates),
    "templates/hooks/series": lambda it: load_templates(it.templates),
    "patches/series": _read_patches,
    "patches/types.patch": _read_patches,
    "vendor/llama.cpp.toml": lambda it: load_pin(it.pin_file),
    "vendor/llama.cpp/.git/qlutattn/receipt.json": lambda it: read_receipt(it.tree / ".git/qlutattn/receipt.json"),
    JOURNAL: _recover,
}


@examples(125)
@given(st.sampled_from(sorted(READERS)), st.lists(mutations(), min_size=1, max_size=3))
def test_no_input_that_is_read_makes_a_traceback(whole, name, spoils):
    path = whole.root / name
    good = path.read_bytes()
    data = good
    for spoil in spoils:
        data = spoil(data or b"\n")
    try:
        path.write_bytes(data)
        is_told(lambda: READERS[name](whole.workspace))
    finally:
        path.write_bytes(good)


PIECES = st.sampled_from(
    [
        *("{{ ", " }}", "{% ", " %}", "for t in types", "endfor", "if ", "endif", "types", "[0]", ".name", "{#", "#}"),
        *(".mro()", "tile", ".pack_size", " / 0", " ** ", "'a'", " - ", "range(", "9" * 5000, ")", "|x", "loop.index"),
        *("macro m()", "endmacro", "m()", "self", "|attr('__init__')", "books", ".items()", "\n", "text", "|join", "%"),
        *("include 'x'", "set x = 1", "(" * 400, "-", "|format(1)", "cycler", "upstream", ".__class__"),
    ]
)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(load_formats(ROOT / "templates" / "formats.toml"))


@examples(60)
@given(
    st.lists(PIECES, max_size=10).map("".join) | st.lists(PIECES, max_size=6).map(lambda x: f"{{{{ {''.join(x)} }}}}")
)
def test_no_template_makes_a_traceback(renderer, template):
    is_told(lambda: renderer.text(template, "here"))


ARGUMENTS = (["generate", "--check"], ["apply"], ["status"], ["revert"])


@examples(25)
@given(st.sampled_from(sorted(READERS)), mutations(), st.sampled_from(ARGUMENTS))
def test_every_command_ends_with_a_known_code_and_a_sentence(whole, name, spoil, argv):
    find = Workspace.find
    path = whole.root / name
    good, before = path.read_bytes(), everything(whole.tree)
    said = io.StringIO()
    Workspace.find = classmethod(lambda cls, tree=None, start=None: whole.workspace)  # type: ignore[method-assign]
    try:
        path.write_bytes(spoil(good))
        with redirect_stdout(io.StringIO()), redirect_stderr(said):
            code = main.run(argv)
        assert code in (0, 1, 3), said.getvalue()
        assert "Traceback" not in said.getvalue()
        assert ("error: " in said.getvalue()) == (code != 0)
        assert ("  next: " in said.getvalue()) == (code == 3)
    finally:
        path.write_bytes(good)
        Workspace.find = find  # type: ignore[method-assign]
        if everything(whole.tree) != before:
            assert argv in (["apply"], ["revert"])
            apply(whole.workspace, load_series(whole.workspace.patches))
            assert everything(whole.tree) == before
