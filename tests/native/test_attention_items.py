"""How the mixed attention's work is cut into items."""

from __future__ import annotations

import subprocess
from pathlib import Path

import kv_helpers
import pytest

THREADS = 64


@pytest.mark.compiler
def test_few_queries_are_enough_work_for_many_threads_and_get_the_bits_that_they_get_alone(
    tree: Path, tmp_path: Path
) -> None:
    cpu = [f"-I{tree / 'ggml' / 'src' / folder}" for folder in (".", "ggml-cpu", "ggml-cpu/qlutattn")]
    program = kv_helpers.compile_driver("few_queries.cpp", tree, tmp_path, *cpu)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [int(line[0]) for line in lines] == [1, 2, 3, 5, 8, 16]
    for line in lines:
        of_one_head, of_eight = int(line[2]), int(line[3])
        assert of_one_head >= THREADS
        assert of_eight >= 2 * THREADS


@pytest.mark.compiler
def test_8_bits_over_f16_give_each_query_the_same_bits_whatever_is_beside_it(tree: Path, tmp_path: Path) -> None:
    program = kv_helpers.compile_driver("int8_attention.cpp", tree, tmp_path)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
