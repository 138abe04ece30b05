"""Installing below a prefix: what is built and where, with stand-ins; tests/native/test_install.py does it."""

from __future__ import annotations

import os
from pathlib import Path

import fake_tools
import pytest
from build_helpers import Bench, definitions, untouched

from qlutattn_patch.building.prefix import install
from qlutattn_patch.system.errors import ExpectedError


def installs(bench: Bench) -> list[list[str]]:
    return [call["argv"] for call in bench.calls("--install")]  # type: ignore[misc]


def test_all_tools_are_built_without_tests_and_installed(bench: Bench, tmp_path: Path) -> None:
    install(bench.workspace, tmp_path / "a b", "native", False, {"GGML_BLAS": "ON"})
    (configured,) = bench.calls("-S")
    given = definitions(configured)
    assert (given["LLAMA_BUILD_TOOLS"], given["LLAMA_BUILD_TESTS"], given["LLAMA_BUILD_EXAMPLES"]) == (
        "ON",
        "OFF",
        "OFF",
    )
    assert (given["GGML_BLAS"], given["CMAKE_INSTALL_LIBDIR"]) == ("ON", "lib")
    assert given["CMAKE_INSTALL_RPATH"] in ("$ORIGIN/../lib", "@loader_path/../lib")
    (argv,) = installs(bench)
    folder = str(bench.workspace.build_dir("native-install"))
    assert argv == ["--install", folder, "--prefix", str(tmp_path / "a b")]
    (build,) = bench.calls("--build")
    assert "all" in build["argv"]  # type: ignore[operator]


def test_libraries_alone_are_configured_small(bench: Bench, tmp_path: Path) -> None:
    install(bench.workspace, tmp_path, "native", False, {})
    install(bench.workspace, tmp_path, "native", True, {})
    assert [definitions(call)["LLAMA_BUILD_TOOLS"] for call in bench.calls("-S")] == ["ON", "OFF"]


def test_what_cmake_wrote_is_returned(bench: Bench, tmp_path: Path) -> None:
    fake_tools.behaves(
        bench.bin, "cmake", 0, "-- Install configuration: Release\n-- Installing: /p/a\n-- Up-to-date: /p/b\n"
    )
    assert install(bench.workspace, tmp_path, "native", True, {}) == ["/p/a", "/p/b"]


def test_a_failed_install_shows_why(bench: Bench, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fake_tools.behaves(bench.bin, "cmake", 1, "CMake Error: the disk is full\n")
    with pytest.raises(ExpectedError, match="cmake could not install below"):
        install(bench.workspace, tmp_path, "native", True, {})
    assert "the disk is full" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_built(
    kind: str, bench: Bench, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.touch()
    else:
        place.mkdir(mode=0o555)
        if os.access(place, os.W_OK):
            pytest.skip("this user may write anywhere")
    with pytest.raises(ExpectedError, match="no folder that you may write to"):
        install(bench.workspace, place / "below", "native", True, {})
    assert untouched(bench)
