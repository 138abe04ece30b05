"""Parse ninja's output line by line: progress and failures."""

from __future__ import annotations

import re

STATUS = "[%f/%t] "  # $NINJA_STATUS that `_EDGE` reads
_EDGE = re.compile(r"\[(\d+)/(\d+)\] (.*)")
_OBJECT = re.compile(r"Building \w+ object (.*)\.o(?:bj)?")
_FOLDER_OF_TARGET = re.compile(r"CMakeFiles/[^/]+\.dir/")
_LINKED = re.compile(r"Linking .*[ /]([^ /]+)")
# with --verbose, the command itself
_COMPILES = re.compile(r".* -o (\S+)\.o(?:bj)? -c .*")
_LINKS = re.compile(r".* -o (\S+) .*")


def subject(doing: str) -> str:
    """What a step works on: the source file that is compiled, or the program that is linked."""
    if found := _OBJECT.fullmatch(doing) or _COMPILES.fullmatch(doing):
        return _FOLDER_OF_TARGET.sub("", found[1])
    if found := _LINKED.fullmatch(doing) or _LINKS.fullmatch(doing):
        return f"linking {found[1].rpartition('/')[2]}"
    return doing


class Output:
    """Parser of ninja's output, fed line by line."""

    def __init__(self) -> None:
        self.done = 0
        self.total = 0
        self.doing = ""
        self.lines: list[str] = []
        self.errors: list[list[str]] = []  # per failed command: "FAILED: …", the command, its output
        self._failing = False

    def take(self, line: str) -> bool:
        """Parse the next line; True if it reports progress."""
        self.lines.append(line)
        if edge := _EDGE.fullmatch(line):
            self.done, self.total, self.doing = int(edge[1]), int(edge[2]), subject(edge[3])
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
        """The unknown target, if ninja stopped because of one."""
        found = re.search(r"ninja: error: unknown target '([^']*)'", "\n".join(self.lines))
        return found[1] if found else None

    def report(self) -> list[str]:
        """The full output of every failed command; without one, the last lines."""
        if not self.errors:
            return self.lines[-40:]
        # The second line is the command, thousands of characters long: it is in the log.
        return [line for block in self.errors for line in (block[0], *block[2:])]
