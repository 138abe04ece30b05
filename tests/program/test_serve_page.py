"""docs/serve.md: its sizes are those of the command, and its server answers."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import server_process
from helpers import ROOT
from shell_blocks import blocks
from tiny_models import write_model

from qlutattn_patch.commands import main

PAGE = ROOT / "docs" / "serve.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_sizes_of_the_page_are_those_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = re.findall(r"as `qlutattn (size --all-shapes [^`]*)` prints", TEXT)
    assert main.run([*shlex.split(command), "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    computed = [[m["name"], *(f"{row['bytes'] / 2**20:.0f}" for row in m["caches"])] for m in models]
    table = TEXT.partition("| model | f16 | q8_0 |")[2].partition("\n\n")[0]
    assert [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]] == computed


def test_the_table_of_the_page_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["size", "--shape", "llama-3.1-8b", "-c", "32768"]) == 0
    (shown,) = re.findall(r"```text\n(.*?)```", TEXT, re.S)
    assert capsys.readouterr().out.split() == shown.split()


@pytest.mark.compiler
@pytest.mark.slow
def test_the_page_works(tmp_path: Path) -> None:
    """The server of docs/serve.md answers its question, at another port."""
    start, ask = (block.script for block in blocks(PAGE) if block.run_by)
    program, *words = shlex.split(start)
    assert main.run(["build", "--target", Path(program).name]) == 0
    model = str(write_model(tmp_path / "M.gguf"))
    argv = [model if word == "M.gguf" else word for word in words]
    place = argv.index("--port")
    _, _, url, _, body = shlex.split(ask)
    with server_process.start(ROOT / program, *argv[:place], *argv[place + 2 :]) as server:
        assert server("GET", "/props")["total_slots"] == 4
        answer = server("POST", urlsplit(url).path, json.loads(body))
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] > 0
