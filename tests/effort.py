"""How far a test goes that could go on for long: a sample, the same each time, or all of it with `--thorough`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import HealthCheck, settings

T = TypeVar("T")

thorough = False  # conftest.py sets it before any test module is imported


def most(short: int, long: int) -> int:
    """How many examples, steps or seconds."""
    return long if thorough else short


def sample(cases: Sequence[T], every: int) -> Sequence[T]:
    """Every n-th of the cases, or all of them."""
    return cases if thorough else cases[::every]


def examples(count: int) -> settings:
    """This many of hypothesis's examples, always the same; with `--thorough` twenty times as many, others each time.

    No test fails because a machine is slow.
    """
    slow = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.large_base_example]
    return settings(
        max_examples=most(count, 20 * count),
        derandomize=not thorough,
        database=None,
        deadline=None,
        suppress_health_check=slow,
        print_blob=thorough,
    )
