"""Read what ninja says as it says it: how far it is, and what failed."""

from __future__ import annotations

import re

STATUS = "[%f/%t] "  # $NINJA_STATUS that `_EDGE` reads
_EDGE = re.compile(r"\[(\d+)/(\d+)\] (.*)")


class Output:
    """Takes ninja's lines one by one."""

    def __init__(self) -> None:
        self.done = 0
        self.total = 0
        self.doing = ""
        self.lines: list[str] = []
        self.errors: list[list[str]] = []  # of each command that failed: "FAILED: …", the command, all that it wrote
        self._failing = False

    def take(self, line: str) -> bool:
        """Take the next line; True if it tells of progress."""
        self.lines.append(line)
        if edge := _EDGE.fullmatch(line):
            self.done, self.total, self.doing = int(edge[1]), int(edge[2]), edge[3]
            self._failing = False
            return True
        if line.startswith("FAILED: "):
            self.errors.append([])
            self._failing = True
        elif line.startswith("ninja: "):
            self._failing = False
        if self._failing:
            self.errors[-1].append(line)
        return False

    @property
    def unknown_target(self) -> str | None:
        """The target that ninja has never heard of, if that is what stopped it."""
        found = re.search(r"ninja: error: unknown target '([^']*)'", "\n".join(self.lines))
        return found[1] if found else None

    def report(self) -> list[str]:
        """What went wrong, whole: the output of every command that failed, else the last lines of everything."""
        if not self.errors:
            return self.lines[-40:]
        # The second line is the command, thousands of characters long: the log has it.
        return [line for block in self.errors for line in (block[0], *block[2:])]
