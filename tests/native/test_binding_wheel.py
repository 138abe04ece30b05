"""The wheel of the patched llama-cpp-python, in a fresh environment: generation, chat, its server, its own tests."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import server_process
import tiny_models
from helpers import ROOT
from shell_blocks import blocks

from qlutattn_patch import __version__
from qlutattn_patch.commands import main
from qlutattn_patch.upstream import sdist
from qlutattn_patch.upstream.pin import SdistSource, load_pin
from qlutattn_patch.workspace import Workspace, cache_dir

pytestmark = [pytest.mark.compiler, pytest.mark.slow]

PAGE = ROOT / "docs" / "bindings.md"
[RELEASE] = [one for one in load_pin(Workspace.find().pin_file).sources if isinstance(one, SdistSource)]
EXTRAS = "server,test"
# of the package's own tests: these load models from the network
NETWORK = re.compile(r"huggingface_hub|hf_hub|LocalEntryNotFound|ConnectionError|OfflineMode")


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel, and a folder with a model."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "fresh" / "bin" / "python"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def variables(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LLAMA_"))}
        return {**kept, "HF_HUB_OFFLINE": "1"}

    def run(self, *argv: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [self.python, *argv]
        return subprocess.run(
            command, cwd=cwd or self.work, env=self.variables, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("wheel"))
    made.work.mkdir()
    tiny_models.write_model(made.work / "M.gguf")
    subprocess.run([sys.executable, "-m", "venv", made.folder / "fresh"], check=True)
    test_the_documented_commands_build_and_install_it(made)
    return made


def test_the_documented_commands_build_and_install_it(fresh: Environment) -> None:
    """The commands of docs/bindings.md, with a name for the wheel."""
    (block,) = (block for block in blocks(PAGE) if "wheel)" in block.script)
    assert [shlex.split(command)[:2] for command in block.commands[:2]] == [
        ["qlutattn", "vendor"],
        ["qlutattn", "apply"],
    ]
    assert main.run(["vendor"]) == 0
    assert main.run(["apply"]) == 0
    assert main.run(["wheel", "--out", str(fresh.folder)]) == 0
    (wheel,) = fresh.folder.glob("*.whl")
    assert f"{RELEASE.version}+qlutattn.{__version__}" in wheel.name
    installed = fresh.run("-m", "pip", "install", "--disable-pip-version-check", f"{wheel}[{EXTRAS}]")
    if installed.returncode != 0 and re.search("No matching distribution|Connection", installed.stderr):
        pytest.skip(f"pip has no source for what llama-cpp-python needs: {installed.stderr[-500:]}")
    assert installed.returncode == 0, installed.stderr


def test_the_documented_program_generates_and_chats(fresh: Environment) -> None:
    programs = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    (program,) = (one for one in programs if "from llama_cpp import qlutattn" in one)
    done = fresh.run("-c", program)
    assert done.returncode == 0, done.stderr[-4000:]
    assert len(done.stdout.splitlines()) >= 2
    assert "K qlutattn_k4_128x128, V qlutattn_v4_128x128" in done.stderr
    assert re.search(r"for 128 sinks, a window of 512", done.stderr)


def test_long_prompts_are_packed_and_answered_nearly_as_with_f16(fresh: Environment) -> None:
    program = f"""
from llama_cpp import Llama, qlutattn
import numpy as np
qlutattn.set_kv_window(64)
qlutattn.set_kv_sink(16)
last = []
for cache in ({{}}, qlutattn.cache("K8V8"), qlutattn.cache("K4V4")):
    llama = Llama("M.gguf", n_ctx=4096, n_ubatch=128, seed=1, verbose=False, **cache)
    llama.eval(llama.tokenize({(tiny_models.CORPUS * 6)!r}.encode()))
    assert llama.n_tokens > 1000
    last.append(np.array(llama._ctx.get_logits_ith(-1)[: llama.n_vocab()]))
spread = last[0].var()
print(*(np.mean((one - last[0]) ** 2) / spread for one in last))
"""
    done = fresh.run("-c", program)
    assert done.returncode == 0, done.stderr[-4000:]
    same, eight, four = map(float, done.stdout.split())
    assert same == 0
    assert 0 < eight < four < 0.2


def test_the_server_of_the_package_answers(fresh: Environment) -> None:
    """The command of docs/bindings.md, at a port that is free."""
    (block,) = (block for block in blocks(PAGE) if "llama_cpp.server" in block.script)
    _, *words = shlex.split(block.script)
    port = server_process.free_port()
    log = fresh.folder / "server.log"
    with log.open("w") as out:
        argv = [fresh.python, *words, "--port", str(port)]
        server = subprocess.Popen(argv, cwd=fresh.work, env=fresh.variables, stdout=out, stderr=subprocess.STDOUT)
    try:
        chat = {"messages": [{"role": "user", "content": "What does a cache hold?"}], "max_tokens": 8}
        answer = _asked(server, f"http://127.0.0.1:{port}/v1/chat/completions", chat, log)
        text = _asked(server, f"http://127.0.0.1:{port}/v1/completions", {"prompt": "A tile", "max_tokens": 8}, log)
    finally:
        server.terminate()
        server.wait(60)
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] > 0
    assert text["choices"][0]["text"]
    assert "K qlutattn_k4_128x128, V qlutattn_v4_128x128" in log.read_text(encoding="utf-8")


def _asked(server: subprocess.Popen[bytes], url: str, body: object, log: Path) -> Any:
    """The answer to a request, as soon as the server answers."""
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    for _ in range(600):
        assert server.poll() is None, log.read_text(encoding="utf-8")[-4000:]
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    raise AssertionError(f"the server does not answer: {log.read_text(encoding='utf-8')[-4000:]}")


def test_the_tests_of_the_package_pass(fresh: Environment) -> None:
    """All that need no network, on the installed wheel."""
    with tarfile.open(sdist.obtain(RELEASE, cache_dir())) as files:
        for member in files.getmembers():
            name = member.name.partition("/")[2]
            if member.isfile() and re.match(r"tests/|vendor/llama\.cpp/models/", name):
                path = fresh.folder / "own" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(files.extractfile(member).read())  # type: ignore[union-attr]
    report = fresh.folder / "own.xml"
    done = fresh.run("-m", "pytest", "-q", "tests", f"--junit-xml={report}", cwd=fresh.folder / "own")
    assert re.search(r"\b[1-9]\d* passed", done.stdout), done.stdout[-4000:] + done.stderr[-2000:]
    reasons = [f"{one.get('message')} {one.text}" for kind in ("failure", "error") for one in _found(report, kind)]
    assert [reason[-2000:] for reason in reasons if not NETWORK.search(reason)] == []


def _found(report: Path, kind: str) -> list[ElementTree.Element]:
    return ElementTree.parse(report).getroot().findall(f".//{kind}")
