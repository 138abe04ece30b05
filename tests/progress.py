"""While tests run, a line on stderr: how many are done, about how long the others will take, and which ones run now.

In a terminal one line that changes; in a pipe one every half minute. A failure is reported at once.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from typing import Any, TextIO

import pytest

_STDERR = os.dup(2)  # pytest captures 2 later on
_CACHE = "qlutattn/seconds"  # what each test took, where it ran last
_IN_A_PIPE = 30.0


class Progress:
    """What is done, and what is not."""

    def __init__(self, config: pytest.Config, out: TextIO) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._width = shutil.get_terminal_size().columns
        self._took: dict[str, float] = {}
        self._cache = getattr(config, "cache", None)
        self._known: dict[str, float] = self._cache.get(_CACHE, {}) if self._cache else {}
        self._left: set[str] = set()
        self._running: dict[str, float] = {}
        self._failed = 0
        self._total = 0
        self._workers = 1
        self._started = time.monotonic()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._keep_drawing, daemon=True)

    def start(self, names: list[str], workers: int) -> None:
        """These are to run."""
        if not self._total:
            self._left, self._total, self._workers = set(names), len(names), workers
            self._thread.start()

    def stop(self) -> None:
        self._over.set()
        with self._lock:
            self._write("")
        if self._cache and self._took:
            self._cache.set(_CACHE, {**self._known, **self._took})

    def text(self) -> str:
        """The line."""
        now = time.monotonic()
        done = self._total - len(self._left)
        parts = [f"[{done}/{self._total}] {_minutes(now - self._started)}"]
        if self._failed:
            parts.append(f"{self._failed} failed")
        left = self.seconds_left(now)
        if left is not None:
            parts.append(f"about {_minutes(left)} left")
        running = ", ".join(f"{_short(name)} ({now - since:.0f} s)" for name, since in [*self._running.items()])
        return f"{', '.join(parts)}: {running or 'starting'}"

    def seconds_left(self, now: float) -> float | None:
        """About how long the tests that are left will take; None where most of them never ran here."""
        left = list(self._left)
        known = [self._known[name] for name in left if name in self._known]
        if not left or len(known) < 0.8 * len(left):
            return None
        spent = sum(min(now - since, self._known.get(name, 0)) for name, since in [*self._running.items()])
        return max(0.0, sum(known) * len(left) / len(known) - spent) / self._workers

    def _keep_drawing(self) -> None:
        while not self._over.wait(1.0 if self._is_terminal else _IN_A_PIPE):
            with self._lock:
                if not self._over.is_set():
                    self._write(self.text())

    def _write(self, text: str) -> None:
        if self._is_terminal:
            self._out.write(f"\r\x1b[K{text[: self._width - 1]}")
        elif text:
            self._out.write(f"{text}\n")
        self._out.flush()

    # --- hooks

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.items and not session.config.option.collectonly:
            self.start([item.nodeid for item in session.items], 1)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        self.start(ids, node.config.getoption("numprocesses") or 1)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running[nodeid] = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.pop(nodeid, None)
        self._left.discard(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._took[report.nodeid] = round(self._took.get(report.nodeid, 0.0) + report.duration, 3)
        if report.failed:
            self._failed += 1
            with self._lock:
                self._write("")
                self._out.write(f"FAILED {report.nodeid}\n")

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """No dots: the line says it."""
        if report.when == "call" and not hasattr(report, "wasxfail"):
            return report.outcome, "", report.outcome.upper()
        if report.when != "call" and report.failed:
            return "error", "", "ERROR"
        return ("skipped", "", "SKIPPED") if report.skipped else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self.stop()


def _short(name: str) -> str:
    """The name of a test without folders and file type."""
    path, _, rest = name.partition("::")
    return f"{path.rpartition('/')[2].removesuffix('.py')}::{rest}"[:70]


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if hasattr(config, "workerinput") or reporter is None:
        return
    reporter.showfspath = False
    config.pluginmanager.register(Progress(config, os.fdopen(_STDERR, "w", encoding="utf-8", errors="replace")))
