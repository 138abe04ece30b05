"""What ninja reports of a failed build is shown, without what is harmless."""

from __future__ import annotations

import re
from pathlib import Path

import fake_tools
import pytest
from build_helpers import Bench

from qlutattn_patch.building import ninja
from qlutattn_patch.system.errors import ExpectedError

NINJA_FAILS = """\
[1/9] Building CXX object a.o
a.cpp: warning: harmless
FAILED: b.o
/usr/bin/c++ -Ivery -Ilong
b.cpp:1:1: error: first
    1 | x
[2/9] Building CXX object c.o
c.cpp: warning: harmless
FAILED: d.o
/usr/bin/c++ -Ivery -Ilong
d.cpp:1:1: error: second
ninja: build stopped: subcommand failed.
"""


def test_errors_are_shown_whole_and_last(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    fake_tools.behaves(bench.bin, "cmake--build", 1, NINJA_FAILS)
    with pytest.raises(ExpectedError, match=r"The build of align_attn failed in 2 place\(s\)") as failure:
        bench.build()
    err = capsys.readouterr().err
    told = ["FAILED: b.o", "b.cpp:1:1: error: first", "    1 | x", "FAILED: d.o", "d.cpp:1:1: error: second", ""]
    assert err.endswith("\n".join(told))
    assert "harmless" not in err
    log = re.search(r"output is in (.*qlutattn-build\.log)", failure.value.cause)
    assert log
    assert NINJA_FAILS in Path(log[1]).read_text(encoding="utf-8")


def test_an_unknown_target(bench: Bench) -> None:
    output = "ninja: error: unknown target 'align_atn', did you mean 'align_attn'?\n"
    fake_tools.behaves(bench.bin, "cmake--build", 1, output)
    with pytest.raises(ExpectedError, match="has no target 'align_atn'"):
        bench.build("native", "align_atn")


def test_a_failure_that_names_no_command_is_shown_too(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    fake_tools.behaves(bench.bin, "cmake--build", 137, "ninja: fatal: out of memory\n")
    with pytest.raises(ExpectedError, match="The build of align_attn failed;"):
        bench.build()
    assert capsys.readouterr().err.endswith("ninja: fatal: out of memory\n")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Building CXX object src/CMakeFiles/llama.dir/models/llama.cpp.o", "src/models/llama.cpp"),
        ("Building C object ggml/src/CMakeFiles/ggml-base.dir/ggml.c.o", "ggml/src/ggml.c"),
        ("Linking CXX shared library bin/libllama.so.0.0.1", "linking libllama.so.0.0.1"),
        ("Linking CXX executable bin/llama-bench", "linking llama-bench"),
        ("Generating build details from Git", "Generating build details from Git"),
        (  # ninja --verbose
            "/usr/bin/ccache c++ -O3 -o src/CMakeFiles/llama.dir/Unity/unity_6_cxx.cxx.o -c /tmp/unity_6_cxx.cxx",
            "src/Unity/unity_6_cxx.cxx",
        ),
        (
            ": && /usr/bin/c++ -shared -Wl,-soname,libllama.so -o bin/libllama.so a.dir/a.c.o && :",
            "linking libllama.so",
        ),
    ],
)
def test_what_is_compiled_is_named(line: str, shown: str) -> None:
    output = ninja.Output()
    assert output.take(f"[3/9] {line}")
    assert (output.done, output.total, output.doing) == (3, 9, shown)
