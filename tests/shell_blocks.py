"""The shell commands in README.md, CONTRIBUTING.md and docs/: every block of them, and what runs it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from helpers import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELLS = ("sh", "bash", "shell", "zsh", "fish", "console")
MARK = re.compile(r"<!-- run by (\S+?) -->")
_FENCE = re.compile(r"^( *)```(\w*)$")


@dataclass(frozen=True)
class Block:
    """The commands of a fenced block, without prompts and output; `run_by` is what the comment above it names."""

    page: str
    line: int
    commands: tuple[str, ...]
    run_by: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def script(self) -> str:
        return "\n".join(self.commands) + "\n"


def blocks(page: Path, text: str | None = None) -> list[Block]:
    """All blocks of a page that are in a shell's language, or have a line with a prompt in them."""
    found: list[Block] = []
    lines = (page.read_text(encoding="utf-8") if text is None else text).splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if not fence:
            continue
        if start is None:
            start, indent, language = number, len(fence[1]), fence[2]
            continue
        commands = _commands([inner[indent:] for inner in lines[start + 1 : number]], language)
        if commands:
            above = MARK.fullmatch(lines[start - 1].strip()) if start else None
            name = page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name
            found.append(Block(name, start + 1, tuple(commands), above[1] if above else None))
        start = None
    return found


def inline(page: Path) -> list[str]:
    """The commands of ours that stand in a page's sentences."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    spans = re.findall(r"`((?:[A-Z_]+=\S+ )*(?:qlutattn|make|python) [^`]+)`", text)
    return [re.sub(r"^(?:[A-Z_]+=\S+ )+", "", span) for span in spans]


def _commands(lines: list[str], language: str) -> list[str]:
    prompts = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    if prompts:
        return prompts
    if language not in SHELLS:
        return []
    joined = "\n".join(lines).replace("\\\n", "")
    return [line for line in joined.split("\n") if line.strip() and not line.lstrip().startswith("#")]
