"""What doctor finds and misses, and the line that it tells to type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qlutattn_patch.building import doctor, install, toolchain
from qlutattn_patch.commands import main


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with nothing on PATH and nothing from PyPI; returns the one folder on PATH."""
    folder = tmp_path / "bin mit ä"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(toolchain.sysconfig, "get_path", lambda name: str(tmp_path / "nowhere"))
    monkeypatch.setattr(doctor.platform, "system", lambda: "Linux")
    monkeypatch.setattr(install.os, "geteuid", lambda: 1000)
    return folder


def put(folder: Path, name: str, says: str = "", status: int = 0) -> None:
    """A program that says its version."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says or name + ' 9.8.7'}'\nexit {status}\n", encoding="utf-8")
    path.chmod(0o755)


def put_all(folder: Path) -> None:
    for name in ("git", "cc", "c++", "cmake", "ninja"):
        put(folder, name)


def named(report: doctor.Report, name: str) -> doctor.Finding:
    return next(finding for finding in report.findings if finding.name == name)


def test_a_bare_machine_can_not_run_and_is_told_one_line(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(bare, "apt-get")
    assert main.run(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert "MISSING" in out
    line = next(line for line in out.splitlines() if "apt-get" in line)
    for package in ("git", "g++", "cmake", "ninja-build", "clang", "ccache", "lld"):
        assert f" {package}" in line
    assert "sudo apt-get install -y" in line
    assert line.count("g++ ") == 1
    assert "git, C compiler, C++ compiler, cmake, ninja" in err


def test_what_the_main_job_needs_is_enough(bare: Path, tmp_path: Path) -> None:
    put_all(bare)
    report = doctor.examine(tmp_path)
    assert report.ok
    assert {finding.name for finding in report.missing} >= {"clang", "ccache", "lld"}
    cmake = named(report, "cmake")
    assert (cmake.path, cmake.version) == (str(bare / "cmake"), "9.8.7")


def test_json_holds_everything(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_all(bare)
    assert main.run(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["ok"]) == (1, True)
    ninja = next(finding for finding in told["findings"] if finding["name"] == "ninja")
    assert (ninja["ok"], ninja["required"], ninja["version"]) == (True, True, "9.8.7")
    assert told["install"].startswith("install with your package manager: ")


def test_a_program_that_does_not_run_is_not_there(bare: Path, tmp_path: Path) -> None:
    put_all(bare)
    put(bare, "git", "broken", status=1)
    report = doctor.examine(tmp_path)
    assert not report.ok
    assert not named(report, "git").ok


def test_an_old_cmake_is_not_enough(bare: Path, tmp_path: Path) -> None:
    put_all(bare)
    put(bare, "cmake", "cmake version 3.13.4")
    assert not named(doctor.examine(tmp_path), "cmake").ok


def test_a_full_disk_is_told(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_all(bare)
    usage = doctor.shutil.disk_usage(tmp_path)._replace(free=1024**3)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    report = doctor.examine(tmp_path)
    assert not report.ok
    assert named(report, "disk space").version == "1.0 GiB free, 2 GiB needed"


def test_the_install_line_of_each_system(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert install.line(["c++", "lld"]) == "install with your package manager: c++, lld"
    put(bare, "apt-get")
    assert install.line(["c++", "lld", "c++"]) == "sudo apt-get install -y g++ lld"
    monkeypatch.setattr(install.os, "geteuid", lambda: 0)
    assert install.line(["qemu-aarch64"]) == "apt-get install -y qemu-user"
    (bare / "apt-get").unlink()
    monkeypatch.setattr(install.platform, "system", lambda: "Darwin")
    assert install.line(["ninja", "clang"]) == "brew install ninja llvm"
