"""Every command in README.md and docs/ is run by a test, and every one in their sentences is understood."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import documents
import pytest
import server_process
from helpers import ROOT, git, parsed
from shell_blocks import PAGES, Block, blocks, inline
from tiny_models import CORPUS, write_model

from qlutattn_patch.building.presets import PRESETS
from qlutattn_patch.commands import main

BLOCKS = [block for page in PAGES for block in blocks(page)]
# make's are what CI consists of
RUN_HERE = [block for block in BLOCKS if block.run_by is None and not block.script.startswith("make ")]
OURS = ("patches", "templates", "vendor", "docs/patches.md", "docs/formats.md")  # what commands of ours could change
HOW = (
    "each fenced block of shell commands is run by tests/program/test_docs.py as it stands, in a bash where M.gguf is a"
    " small model and T.txt a text. Where that takes long, or cannot be, put `<!-- run by PATH::TEST -->` (a test whose"
    " source has each of its commands, or names the page) or `<!-- run by .ci/run -->` right above the block"
)


def source_of(test: str) -> str:
    """The source of a test, as PATH::NAME; of anything else the whole file."""
    path, _, name = test.partition("::")
    text = (ROOT / path).read_text(encoding="utf-8")
    if not name:
        return text
    found = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == name]
    assert found, f"{path} has no test {name}"
    return ast.get_source_segment(text, found[0]) or ""


def is_run(block: Block, source: str) -> bool:
    """Whether a test reads the page itself, or has every command word for word."""
    page = Path(block.page).name
    return page in source or all(command in source for command in block.commands)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.run_by], ids=str)
def test_what_is_said_to_run_a_block_does(block: Block) -> None:
    assert (ROOT / block.run_by.partition("::")[0]).is_file(), f"{block}: there is no {block.run_by}; {HOW}"
    assert is_run(block, source_of(block.run_by)), f"{block}: {block.run_by} does not run it; {HOW}"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.script.startswith("make ")], ids=str)
def test_make_is_run_by_ci(block: Block) -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in block.commands:
        target = shlex.split(command)[1]
        argv = ["make", "--dry-run", target]
        recipe = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        by_pipeline = "-m qlutattn_patch run" in recipe  # which tests/workflow/test_run_all.py runs, twice
        assert by_pipeline or f"make {target}" in ci, f"{block}: .ci/run does not `{command}`; {HOW}"


def test_blocks_are_found(tmp_path: Path) -> None:
    page = "# A\n\n```sh\na \\\n  b\n# no\n\nc\n```\n\n```text\nd\n```\n\n```text\n$ e\nsaid\n```\n\n"
    page += "<!-- run by tests/x.py::test_y -->\n  ```console\n  $ f\n  ```\n"
    found = blocks(tmp_path / "p.md", page)
    assert [(block.commands, block.run_by) for block in found] == [
        (("a   b", "c"), None),
        (("e",), None),
        (("f",), "tests/x.py::test_y"),
    ]
    assert len(BLOCKS) > 15


def test_a_block_that_nothing_runs_is_noticed() -> None:
    block = Block("docs/x.md", 1, ("qlutattn nonsense",), "tests/program/test_docs.py::test_blocks_are_found")
    assert not is_run(block, source_of(block.run_by or ""))
    with pytest.raises(AssertionError, match="has no test test_nothing"):
        source_of("tests/program/test_docs.py::test_nothing")


# --- run


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What stands for the files that commands name: a model with random weights, a text, a place for a picture."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "T.txt").write_text(CORPUS * 12, encoding="utf-8")
    (folder / "short.txt").write_text(CORPUS * 2, encoding="utf-8")
    return {
        "M.gguf": str(write_model(folder / "M.gguf")),
        "T.txt": str(folder / "T.txt"),
        "short.txt": str(folder / "short.txt"),
        "kld.svg": str(folder / "kld.svg"),
    }


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of someone who has installed qlutattn."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "qlutattn").write_text(f"#!/bin/sh\nexec '{sys.executable}' -m qlutattn_patch \"$@\"\n", encoding="utf-8")
    (folder / "qlutattn").chmod(0o755)
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}


@pytest.mark.compiler
@pytest.mark.parametrize("block", RUN_HERE, ids=str)
def test_blocks_work(block: Block, shell: dict[str, str], files: dict[str, str]) -> None:
    """As they stand there, one after another, and the project is afterwards what it was."""
    script = block.script
    if block.page == "docs/quality.md":  # the same lists of caches on a text that is read in no time
        script = script.replace("M.gguf --text T.txt --ctx 1024", "M.gguf --text short.txt --ctx 128")
    for name, path in files.items():
        script = re.sub(rf"(?<![\w./]){re.escape(name)}(?![\w/])", path, script)
    before = git(ROOT, "status", "--porcelain", *OURS)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, env=shell, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{block} does not work: {done.stderr}{done.stdout[-4000:]}; {HOW}"
    assert git(ROOT, "status", "--porcelain", *OURS) == before
    at = 0
    while (at := done.stdout.find('{\n  "schema"', at)) >= 0:
        document, length = json.JSONDecoder().raw_decode(done.stdout[at:])
        documents.check(document)
        at += length


def test_plain_cmake_on_arm64_is_what_the_preset_does() -> None:
    """`make arm64`, a step of CI, builds with just these flags and definitions, and runs the program."""
    (block,) = blocks(ROOT / "docs" / "building.md")
    configure, build, run = block.commands
    words = shlex.split(configure)
    flags = [word.partition("=")[2] for word in words if word.startswith(("CFLAGS=", "CXXFLAGS="))]
    assert flags == [PRESETS["arm64"].flags] * 2
    defined = re.findall(r"-D ?(\w+)=(\S+)", configure)
    compilers = {"CMAKE_C_COMPILER": "clang", "CMAKE_CXX_COMPILER": "clang++"}
    assert dict(defined) == {**compilers, **PRESETS["arm64"].definitions}
    assert words[words.index("-G") + 1] == "Ninja"
    folder = words[words.index("-B") + 1]
    assert build.startswith(f"cmake --build {folder} ")
    assert run == f"./{folder}/bin/align_attn"


@pytest.mark.compiler
def test_the_server_starts(files: dict[str, str]) -> None:
    """README.md's way to use the types, until it answers."""
    (block,) = (block for block in blocks(ROOT / "README.md") if "llama-server -m" in block.script)
    program, *words = shlex.split(block.script)
    assert main.run(["build", "--target", Path(program).name]) == 0
    argv = [str(files["M.gguf"]) if word == "MODEL.gguf" else word for word in words]
    with server_process.start(ROOT / program, *argv) as ask:
        answer = ask("POST", "/completion", {"prompt": "The cache", "n_predict": 2})
    assert answer["tokens_predicted"] == 2


# --- in sentences


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_sentences_are_understood(page: Path) -> None:
    for span in (part for whole in inline(page) for part in whole.split(" && ")):
        words = [word for word in shlex.split(span.replace("…", "")) if word]
        if words[0] == "make":
            subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        elif words[0] == "python":
            assert (ROOT / words[1]).is_file(), span
        elif len(words) > 1 and not words[1].startswith("-"):
            placed = {"NAME": "native", "PRESET": "native", "PROGRAM": "align_attn", "GOOD": "0.1", "BAD": "0.2"}
            placed |= {"SHELL": "bash", "PREFIX": "/opt/llama", "COMMAND": "build", "NAME=VALUE": "A=B", "NAME=": "A="}
            argv = [placed.get(word, word) for word in words[1:]]
            if set(argv[1:]) or argv[0] not in (
                "cache",
                "completion",
                "eval",
                "install",
                "profile",
                "bisect",
                "rebase",
            ):  # a bare name is no command to type
                parsed(argv)


# --- the site


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [found[key] or "" for key in ("href", "src") if found.get(key)]
        self.ids |= {found["id"] or ""} if found.get("id") else set()


def build_site(config: Path, to: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d", to],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_site_has_every_page_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    done = build_site(ROOT / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 0, done.stderr
    pages = {}
    for path in (tmp_path / "site").rglob("*.html"):
        pages[path] = _Links()
        pages[path].feed(path.read_text(encoding="utf-8"))
    built = {path.relative_to(tmp_path / "site").as_posix() for path in pages}
    docs = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if page.parent != ROOT}
    outside = {f"repository/{name}.html" for name in ("index", "CHANGELOG", "CONTRIBUTING", "SECURITY")}
    assert built - outside == {"404.html", *(name.removesuffix(".md") + ".html" for name in docs)}
    assert outside <= built
    for page, found in pages.items():
        for link in found.links if page.name != "404.html" else []:
            if link == "javascript:void(0)":  # a button of the theme's
                continue
            target, anchor = urldefrag(link)
            if re.match(r"[a-z]+:", target):
                assert target.startswith(("https:", "data:")), link
                continue
            path = (page.parent / unquote(target)).resolve() if target else page
            path = path / "index.html" if path.is_dir() else path
            assert path.is_file(), f"{page.name}: {link}"
            assert not anchor or path.suffix != ".html" or unquote(anchor) in pages[path].ids, f"{page.name}: {link}"


@pytest.mark.slow
def test_the_site_can_be_searched_from_a_file(tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("there is no chromium here")
    assert build_site(ROOT / "mkdocs.yml", tmp_path / "site").returncode == 0
    argv = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}"]
    argv += ["--virtual-time-budget=20000", "--dump-dom", f"{(tmp_path / 'site' / 'index.html').as_uri()}?q=rotation"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300).stdout
    assert "<h1>The mixed KV cache</h1>" in shown


def test_the_home_page_lists_every_page() -> None:
    home = ROOT / "docs" / "index.md"
    listed = set(re.findall(r"\]\(([\w-]+\.md)\)", home.read_text(encoding="utf-8")))
    assert listed == {page.name for page in PAGES if page.parent == home.parent} - {home.name}


@pytest.mark.parametrize("link", ["[x](nowhere.md)", "[x](formats.md#nowhere)", "[x](../nowhere.txt)"])
def test_a_link_that_leads_nowhere_breaks_the_site(tmp_path: Path, link: str) -> None:
    for name in ("mkdocs.yml", "README.md", "LICENSE", "CHANGELOG.md", "scripts", "docs", ".github"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-R", ROOT / name, tmp_path / name], check=True)
    (tmp_path / "docs" / "new.md").write_text(f"# New\n\n{link}\n", encoding="utf-8")
    done = build_site(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    assert "new.md" in done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere_in_the_repository_too(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert link.startswith("https://") or (page.parent / link).exists(), link
