"""The rooms of the package keep their order, what is in them stays small, and words that were replaced stay away."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT

from qlutattn_patch.commands import main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE, TESTS = ROOT / "qlutattn_patch", ROOT / "tests"
PYTHON = [path for folder in (PACKAGE, ROOT / "scripts", TESTS) for path in sorted(folder.rglob("*.py"))]
NATIVE = [
    path
    for folder in (ROOT / "templates" / "overlay", TESTS / "native")
    for path in sorted(folder.rglob("*"))
    if path.name.removesuffix(".j2").endswith((".c", ".cpp", ".h"))
]
LONGEST_MODULE, LONGEST_FUNCTION, LONGEST_NATIVE_FUNCTION = 400, 60, 80


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- imports


def test_the_contract_names_every_command() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (independent,) = (contract["modules"] for contract in contracts if contract["type"] == "independence")
    assert {name.rpartition(".")[2] for name in independent} == set(main.COMMANDS)


def rows_of_the_architecture(heading: str) -> list[list[str]]:
    """The cells of a table of docs/architecture.md, below its heading."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert heading in page
    table = page.partition(heading)[2].partition("\n\n")[0]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines() if row.startswith("| `")]


def test_what_the_architecture_page_says_to_read_first_is_there() -> None:
    for cells in rows_of_the_architecture("| room | modules | start reading at |"):
        (room,) = re.findall(r"`([^`]+)`", cells[0])
        for name in re.findall(r"`([^`]+)`", cells[2]):
            module, _, attribute = name.rpartition(".")
            path = f"qlutattn_patch.{room}.{module or attribute}" if room != "workspace" else "qlutattn_patch.workspace"
            found = importlib.import_module(path)
            owner = getattr(found, module) if room == "workspace" else found
            assert not module or hasattr(owner, attribute), name


def test_the_architecture_page_names_each_room_and_module_once() -> None:
    table = rows_of_the_architecture("| room | modules | start reading at |")
    rooms = [*(path.name for path in rooms_of_the_package()), "workspace"]
    assert sorted(cells[0] for cells in table) == sorted(f"`{room}`" for room in rooms)
    rows = {cells[0]: cells[1] for cells in table}
    for folder in rooms_of_the_package():
        modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
        if folder.name == "commands":
            modules -= set(main.COMMANDS)  # "one module per command"
        named = re.findall(r"`([^`]+)`", rows[f"`{folder.name}`"])
        assert [module for module in sorted(modules) if named.count(module) != 1] == [], folder.name


def test_the_architecture_page_names_each_script() -> None:
    (cells,) = (cells for cells in rows_of_the_architecture("| folder | contents |") if cells[0] == "`scripts/`")
    named = re.findall(r"`([a-z_]+\.py)`", cells[1])
    assert sorted(named) == sorted(path.name for path in (ROOT / "scripts").glob("*.py"))


def rooms_of_the_package() -> list[Path]:
    return sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """What import-linter makes of a copy of the package, by the contracts of pyproject.toml."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("räume")
    shutil.copytree(PACKAGE, folder / "qlutattn_patch", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_imports_point_downwards(copy: Path) -> None:
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout
    assert "3 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("system/files.py", "from qlutattn_patch.commands import main", "system is not allowed to import qlutattn"),
        ("templates/render.py", "import qlutattn_patch.upstream.pin", "templates is not allowed to import qlutattn"),
        ("commands/apply.py", "from qlutattn_patch.commands import build", "Commands do not import one another BROKEN"),
        ("new_room.py", "", "new_room"),
    ],
)
def test_an_import_upwards_or_across_is_found(copy: Path, file: str, line: str, said: str) -> None:
    path = copy / "qlutattn_patch" / file
    before = path.read_bytes() if path.exists() else None
    try:
        with path.open("a", encoding="utf-8") as out:
            out.write(f"\n{line}\n")
        done = lint_imports(copy)
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)
    assert done.returncode != 0
    assert said in done.stdout


def test_a_rooms_init_holds_its_docstring_and_nothing_else() -> None:
    for folder in {path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE}:
        body = ast.parse((folder / "__init__.py").read_text("utf-8")).body
        assert len(body) == 1, name_of(folder)
        assert isinstance(body[0], ast.Expr), name_of(folder)
        assert isinstance(body[0].value, ast.Constant), name_of(folder)


def test_the_tests_of_a_room_are_named_after_its_modules() -> None:
    rooms = {path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("__init__.py")}
    strays = [
        name_of(path)
        for path in TESTS.rglob("test_*.py")
        if (room := path.parent.relative_to(TESTS)) in rooms
        and not (PACKAGE / room / path.name.removeprefix("test_")).is_file()
    ]
    assert strays == []


# --- sizes


def test_python_is_in_small_pieces() -> None:
    large = [f"{name_of(path)}: {count}" for path in PYTHON if (count := lines_of(path)) > LONGEST_MODULE]
    for path in PYTHON:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                count = (node.end_lineno or 0) - node.lineno + 1
                if count > LONGEST_FUNCTION:
                    large.append(f"{name_of(path)}: {node.name}: {count}")
    assert large == []


def lines_of(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


_NO_CODE = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|^[ \t]*#(?:\\\n|[^\n])*',
    re.DOTALL | re.MULTILINE,
)
_NO_FUNCTION = re.compile(r"\b(namespace|struct|class|enum|union|extern)\b[^()]*$|=\s*$")


def code_of(path: Path) -> str:
    """A C++ source without comments, strings and preprocessor lines; what is left keeps its line."""
    return _NO_CODE.sub(lambda found: "\n" * found[0].count("\n"), path.read_text("utf-8"))


def functions_of(code: str) -> Iterator[tuple[str, int]]:
    """The functions of a C++ source: how each begins, and its lines; what is inside of one counts as its own."""
    depth, start, inside = [], 0, None
    for at, char in enumerate(code):
        if char == "{":
            head = code[start:at]
            if inside is None and not _NO_FUNCTION.search(head):
                inside = len(depth)
                first = start + len(head) - len(head.lstrip())
            depth.append(char)
        elif char == "}":
            depth.pop()
            if inside == len(depth):
                yield code[first:].split("\n", 1)[0].strip(), code.count("\n", first, at) + 1
                inside = None
        if char in "{};":
            start = at + 1
    assert not depth


def test_functions_of_c_are_found() -> None:
    code = "namespace a {\nstruct b { int c; };\nint d() {\n  if (e) {\n  }\n}\n}\nint f[] = {\n  1\n};\nint g() { }\n"
    assert list(functions_of(code)) == [("int d() {", 4), ("int g() { }", 1)]


def test_functions_of_our_c_are_short() -> None:
    large = [
        f"{name_of(path)}: {head} {count}"
        for path in NATIVE
        for head, count in functions_of(code_of(path))
        if count > LONGEST_NATIVE_FUNCTION
    ]
    assert large == []


# --- words that were replaced by the field's own

OLD_PYTHON = {"Fields", "Kept", "standing", "held", "settle", "Made", "Moved", "others", "_told", "_said"}
OLD_NATIVE = (
    "qlutattn_tbl|tbl_build|tbl_finish|tbl_mul|units_max|factor_size|seeing_rows|find_scores|finish_scores"
    "|find_weights|add_values|qlutattn_pieces|QLUTATTN_RUN|qlutattn_block|forget_blind_rows|lost_of_gauss|its|NARROW"
)
OLD_VERBS = "pick|spread|four|total|largest|totals|root|either|more|weave|fetch|sketch|draw"
OLD_PROSE = ("told in words", "a bug of ours", "says loudly", "way of data", "for machines")


def identifiers_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        for field in ("id", "attr", "name", "arg", "asname"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                found.update(value.split("."))
    return found


def test_python_has_none_of_the_old_names() -> None:
    ours = [path for path in PYTHON if TESTS not in path.parents]
    found = {name_of(path): old for path in ours if (old := identifiers_of(path) & OLD_PYTHON)}
    assert found == {}


def test_our_c_has_none_of_the_old_names() -> None:
    found = {}
    for path in NATIVE:
        is_kernel = "ggml-cpu/qlutattn" in path.as_posix()
        pattern = rf"\b(?:{OLD_NATIVE})\b" + (rf"|\b(?:{OLD_VERBS})(?=\s*\()" if is_kernel else "")
        if old := set(re.findall(pattern, code_of(path))):
            found[name_of(path)] = sorted(old)
    assert found == {}


def test_prose_has_none_of_the_old_words() -> None:
    texts = [ROOT / name for name in ("README.md", "CHANGELOG.md", "Makefile")]
    texts += [path for path in sorted((ROOT / "docs").rglob("*")) if path.suffix in (".md", ".json")]
    texts += [path for path in PYTHON if TESTS not in path.parents]
    texts += [*NATIVE, *sorted((ROOT / "templates" / "hooks").glob("*.toml"))]
    found = {}
    for path in texts:
        text = " ".join(path.read_text("utf-8").lower().split())
        if old := [word for word in OLD_PROSE if re.search(rf"\b{word}\b", text)]:
            found[name_of(path)] = old
    assert found == {}
