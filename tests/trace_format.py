"""Whether a trace is what Perfetto and chrome://tracing read: the Trace Event Format, its JSON object form."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PHASES = {"X": {"name", "cat", "ph", "ts", "dur", "pid", "tid"}, "M": {"name", "ph", "pid", "tid", "args"}}
_NAMES = {"process_name": "name", "thread_name": "name", "thread_sort_index": "sort_index"}


@dataclass
class Slice:
    """A complete event, and those that lie within it; times in whole nanoseconds."""

    name: str
    category: str
    begin: int
    end: int
    args: dict[str, Any]
    inner: list[Slice] = field(default_factory=list)

    @property
    def length(self) -> int:
        return self.end - self.begin


def load(path: Path) -> dict[str, Any]:
    """A trace as parsed; no number in it may be NaN or infinite."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{path}: {name}")

    loaded: dict[str, Any] = json.loads(path.read_text(encoding="ascii"), parse_constant=refuse)
    return loaded


def slices(trace: dict[str, Any]) -> dict[int, list[Slice]]:
    """The outermost slices of each thread, after checking the format; a thread's slices lie in or behind others."""
    assert isinstance(trace["traceEvents"], list)
    assert trace.get("displayTimeUnit", "ms") in ("ms", "ns")
    threads: dict[int, list[Slice]] = {}
    open_slices: dict[int, list[Slice]] = {}
    for event in trace["traceEvents"]:
        assert event["ph"] in _PHASES, event
        assert event.keys() >= _PHASES[event["ph"]], event
        assert isinstance(event["name"], str), event
        assert all(type(event[key]) is int for key in ("pid", "tid")), event
        if event["ph"] == "M":
            assert _NAMES[event["name"]] in event["args"], event
            continue
        found = _slice(event)
        stack = open_slices.setdefault(event["tid"], [])
        before = stack[-1].inner[-1:] if stack else []
        assert found.begin >= (before[0].begin if before else stack[-1].begin if stack else 0), event
        while stack and found.begin >= stack[-1].end:
            stack.pop()
        assert not stack or found.end <= stack[-1].end, event
        (stack[-1].inner if stack else threads.setdefault(event["tid"], [])).append(found)
        stack.append(found)
    return threads


def _slice(event: dict[str, Any]) -> Slice:
    for key in ("ts", "dur"):
        assert isinstance(event[key], int | float), event
        assert event[key] >= 0, event
    begin = round(1000 * event["ts"])
    return Slice(event["name"], event["cat"], begin, begin + round(1000 * event["dur"]), event.get("args", {}))
