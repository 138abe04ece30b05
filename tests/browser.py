"""A real browser, without a window: what a page measures in it, and pictures of it."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (found := shutil.which(name))),
    None,
)
WHY_NOT = "no chromium (Debian and Ubuntu: sudo apt-get install chromium)"
_SECONDS = 300

# Measured from outside of the page: what is wider than its window, and what does not fit its own box.
_MEASURE = """
const frame = document.querySelector("iframe"), inside = frame.contentWindow, page = frame.contentDocument;
const beyond = [], cut = [];
for (const one of page.body.querySelectorAll("*")) {
  const box = one.getBoundingClientRect(), name = one.tagName + " " + one.textContent.trim().slice(0, 40);
  if (box.width && (box.right > inside.innerWidth + 1 || box.left < -1)) beyond.push(name);
  const drawing = one.tagName == "text" && one.ownerSVGElement.getBoundingClientRect();
  const outside = drawing && (
    box.left < drawing.left - 1 || box.right > drawing.right + 1 || box.bottom > drawing.bottom + 1);
  const hidden = one.scrollWidth > one.clientWidth + 1 && inside.getComputedStyle(one).overflowX != "visible";
  if (outside || hidden) cut.push(name);
}
document.querySelector("output").textContent = JSON.stringify({
  scroll_width: page.documentElement.scrollWidth, inner_width: inside.innerWidth,
  height: page.documentElement.scrollHeight, beyond: beyond, cut: cut,
  paper: inside.getComputedStyle(page.body).backgroundColor,
  ink: inside.getComputedStyle(page.body).color,
  drawn: page.querySelector("svg text") && inside.getComputedStyle(page.querySelector("svg text")).fill,
});
"""


@dataclass(frozen=True)
class Look:
    """How a page is looked at."""

    width: int
    dark: bool = False

    @property
    def name(self) -> str:
        return f"{self.width}-{'dark' if self.dark else 'light'}"


def measure(page: str, look: Look, folder: Path) -> dict[str, Any]:
    """What a page of this width measures; its frame gives it the width, since windows are never narrow."""
    done = _run(_framed(page, look, folder, 2000), look, "--dump-dom")
    found = done.partition("<output>")[2].partition("</output>")[0]
    assert found, done[-2000:]
    measured: dict[str, Any] = json.loads(html.unescape(found))
    return measured


def picture(page: str, look: Look, folder: Path, height: int) -> Path:
    """A PNG of the whole page."""
    path = folder / f"{look.name}.png"
    _run(_framed(page, look, folder, height), look, f"--screenshot={path}", f"--window-size={look.width},{height}")
    assert path.is_file()
    return path


def _framed(page: str, look: Look, folder: Path, height: int) -> Path:
    size = f"width={look.width} height={height}"
    path = folder / f"{look.name}.html"
    path.write_text(
        '<!DOCTYPE html><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        "<style>body { margin: 0 } iframe { border: 0; display: block } output { display: none }</style>"
        f'<iframe {size} srcdoc="{html.escape(page)}"></iframe><output></output>'
        f'<script>addEventListener("load", () => {{ {_MEASURE} }})</script>',
        encoding="utf-8",
    )
    return path


def _run(page: Path, look: Look, *words: str) -> str:
    assert BROWSER
    argv = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    argv += [
        f"--user-data-dir={page.parent / 'profile'}",
        f"--blink-settings=preferredColorScheme={int(not look.dark)}",
    ]
    argv += [*words, page.as_uri()]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=_SECONDS).stdout
