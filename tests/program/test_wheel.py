"""The wheel, by itself: built as a release does, installed into a fresh environment, used outside of the clone."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import ROOT, git, snapshot
from shell_blocks import blocks

from qlutattn_patch import __version__
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.upstream.pin import load_pin
from qlutattn_patch.workspace import Workspace

pytestmark = pytest.mark.compiler
HERE = Workspace(ROOT, ROOT / "vendor" / "llama.cpp")


@dataclass(frozen=True)
class Installed:
    """An environment with nothing but the wheel and what it needs, and an empty folder to work in."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "fresh" / "bin" / "python"

    @property
    def package(self) -> Path:
        return next((self.folder / "fresh").glob("lib/python*/site-packages")) / "qlutattn_patch"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def data(self) -> Path:
        """The user's data directory, which only Linux lets one move."""
        return self.folder / "data" / "qlutattn"

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        path = os.pathsep.join([str(self.python.parent), os.environ["PATH"]])
        return {**kept, "PATH": path, "XDG_DATA_HOME": str(self.data.parent)}

    def run(self, *command: str | Path) -> str:
        done = subprocess.run(
            command, cwd=self.work, env=self.environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{shlex.join(map(str, command))}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made from the sdist, both made of what git knows."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    argv = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    installed = Installed(tmp_path_factory.mktemp("installed"))
    installed.work.mkdir()
    subprocess.run([sys.executable, "-m", "venv", installed.folder / "fresh"], check=True)
    pip = [installed.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, wheel], cwd=installed.work, check=False).returncode != 0:
        # no index: what the wheel needs from this environment, without what its .pth files add, which is the clone
        subprocess.run([*pip, "--no-index", "--no-deps", wheel], cwd=installed.work, check=True)
        installed.package.with_name("needed.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
        for tool in ("cmake", "ninja"):
            installed.python.with_name(tool).symlink_to(Path(sys.executable).with_name(tool))
    return installed


@pytest.fixture
def checkout(installed: Installed) -> Path:
    """A pristine llama.cpp of the pinned commit, elsewhere."""
    folder = installed.work / "DIR"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", HERE.tree, folder], check=True)
    assert not (folder / "tools" / "align-attn").exists()
    return folder


def test_the_wheel_carries_the_project_s_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        share = {
            name.removeprefix("qlutattn_patch/share/"): archive.read(name)
            for name in archive.namelist()
            if name.startswith("qlutattn_patch/share/")
        }
    paths = [*HERE.templates.rglob("*"), *HERE.patches.rglob("*"), HERE.pin_file]
    assert share == {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def test_it_is_the_wheel_that_runs(installed: Installed) -> None:
    found = installed.run(installed.python, "-c", "import qlutattn_patch; print(qlutattn_patch.__file__)").strip()
    assert Path(found) == installed.package / "__init__.py"
    version, pin, series = installed.run("qlutattn", "--version").splitlines()
    assert version == f"qlutattn {__version__}"
    assert load_pin(HERE.pin_file).commit in pin
    assert load_series(HERE.patches).digest in series


def test_it_has_what_commands_read_beside_the_clone_s_files(installed: Installed) -> None:
    said = installed.run("qlutattn", "size", "--shape", "llama-3.1-8b", "-c", "32768", "-np", "1")
    assert "1216 MiB" in said
    assert (installed.package / "building" / "data" / "llama_cpp_qlutattn.py.in").is_file()
    assert "complete" in installed.run("qlutattn", "completion", "bash")


def test_the_page_works_word_by_word(installed: Installed, checkout: Path) -> None:
    """docs/install.md: patch, build, prove and revert a checkout; the clone and the user's data are left alone."""
    (block,) = (one for one in blocks(ROOT / "docs" / "install.md") if "word_by_word" in (one.run_by or ""))
    pristine = snapshot(checkout)
    package = snapshot(installed.package)
    said = {command: installed.run(*shlex.split(command)) for command in block.commands}
    assert "PASS  " in said["qlutattn align --tree DIR --quick"]
    assert f"{checkout}: applied\n" in said["qlutattn status --tree DIR"]
    assert "stale: " not in said["qlutattn status --tree DIR"]
    assert (checkout / "build-qlutattn-native" / "bin" / "align_attn").is_file()
    shutil.rmtree(checkout / "build-qlutattn-native")
    assert snapshot(checkout) == pristine
    assert git(checkout, "status", "--porcelain") == ""
    changed = {name for name, now in snapshot(installed.package).items() if package.get(name) != now}
    assert not {name for name in changed if "__pycache__" not in name}
    assert not installed.data.exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="the data directory of macOS cannot be moved")
def test_the_vendored_tree_is_in_the_user_s_data_directory(installed: Installed) -> None:
    installed.run("qlutattn", "vendor", "--from", str(HERE.tree))
    installed.run("qlutattn", "apply")
    assert installed.run("qlutattn", "status").startswith(f"{installed.data / 'vendor' / 'llama.cpp'}: applied\n")
    assert not any(installed.work.glob("vendor"))
    shutil.rmtree(installed.data)
