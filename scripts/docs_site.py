"""mkdocs hooks: the navigation from the sections of the home page, and links to files outside of docs/.

In the repository, a link such as `../LICENSE` leads to the file; the site contains a copy of it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
HOME = "index.md"
COPIES = "repository"  # the folder of the site for files from outside of docs/
_LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?\)")
_LISTED = re.compile(r"\]\(([^)#:]+\.md)\)")
_FENCE = re.compile(r"^ *(```|~~~)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation: the home page, then its sections, each with the pages that it lists."""
    home = (Path(config.docs_dir) / HOME).read_text(encoding="utf-8")
    names = {path.relative_to(config.docs_dir).as_posix() for path in Path(config.docs_dir).rglob("*.md")}
    groups = {title: [name for name in _LISTED.findall(body) if name in names] for title, body in _sections(home)}
    config.nav = [HOME, *({title: listed} for title, listed in groups.items() if listed)]
    return config


def _sections(page: str) -> list[tuple[str, str]]:
    """The second-level sections of a page, with their titles."""
    parts = re.split(r"^## (.*)$", page, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add each file outside of docs/ that a page links to."""
    pages = list(files.documentation_pages())
    for page in pages:
        for path in sorted(set(_outside(page.src_uri, page.content_string))):
            if (ROOT / path).is_file() and (uri := _copy_of(path)) not in files.src_uris:
                copy = File.generated(config, uri, abs_src_path=str(ROOT / path))
                files.append(copy)
                if copy.is_documentation_page():
                    pages.append(copy)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Redirect links to files outside of docs/ to the copies."""
    name = page.file.src_uri
    folder = posixpath.dirname(name)

    def redirected(path: str) -> str:
        target = _in_repository(name, path)
        inside = _inside(target)
        if inside is None and (ROOT / target).is_file():
            inside = _copy_of(target)
        return path if inside is None else posixpath.relpath(inside, folder or ".")

    return _replaced(markdown, redirected)


def _copy_of(path: str) -> str:
    """The site's path of a file from outside of docs/: Markdown of the top folder as a page, others as plain text."""
    is_page = "/" not in path and path.endswith(".md")
    return f"{COPIES}/{path.lstrip('.')}" + ("" if is_page else ".txt")


def _inside(path: str) -> str | None:
    """A path of the repository relative to docs/; None if it is not below."""
    return path.removeprefix("docs/") if path.startswith("docs/") else None


def _in_repository(page: str, link: str) -> str:
    """The path in the repository that a page's link leads to."""
    source = page.removeprefix(f"{COPIES}/") if page.startswith(f"{COPIES}/") else f"docs/{page}"
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _outside(page: str, text: str) -> list[str]:
    found = []

    def note(link: str) -> str:
        path = _in_repository(page, link)
        if _inside(path) is None:
            found.append(path)
        return link

    _replaced(text, note)
    return found


def _replaced(text: str, redirected: Callable[[str], str]) -> str:
    """A page with each relative link replaced, except in code."""
    lines, fenced = [], False
    for line in text.split("\n"):
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            line = _LINK.sub(lambda m: m[0] if "://" in m[2] else f"{m[1]}{redirected(m[2])}{m[3] or ''})", line)
        lines.append(line)
    return "\n".join(lines)
