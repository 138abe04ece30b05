"""Edit one hook's text in the TOML of a patch; comments and layout are preserved."""

from __future__ import annotations

import re
from typing import Any

import tomlkit
from tomlkit.items import String, StringType, Trivia

from qlutattn_patch.templates.spec import Hook

_VARIANT = re.compile(r"\[\[hook\]\] (\d+)(?: \[\[or\]\] (\d+))?$")
_NOT_LITERAL = re.compile(r"'''|'$|[^\S\n\t ]|[\x00-\x08\x0e-\x1f\x7f]")


def place_of(hook: Hook) -> tuple[int, int | None]:
    """The number of the hook in its file, and of the variant in that hook (None: the hook itself); both from 1."""
    found = _VARIANT.search(hook.where)
    assert found is not None, hook.where
    return int(found[1]), int(found[2]) if found[2] else None


def text_is_shared(toml: str, variant: Hook) -> bool:
    """Whether a variant shares its text with other variants of the hook."""
    number, other = place_of(variant)
    hook = _document(toml)["hook"][number - 1]
    variants = hook.get("or", [])
    return "text" not in variants[other - 1] if other else any("text" not in one for one in variants)


def with_text(toml: str, variant: Hook, text: str) -> str:
    """The file with a new text in a variant, or in its hook if the variant has no text of its own."""
    crlf = "\r\n" in toml
    document = _document(toml)
    number, other = place_of(variant)
    table = document["hook"][number - 1]
    if other is not None and "text" in table["or"][other - 1]:
        table = table["or"][other - 1]
    old: String = table["text"]
    table["text"] = _string(text, old.as_string().startswith(("'''", '"""')), old.as_string().startswith("'"))
    edited = tomlkit.dumps(document)
    return edited.replace("\n", "\r\n") if crlf else edited


def written(text: str) -> str:
    """A text as a TOML string, multi-line if the text has several lines."""
    return _string(text, False, False).as_string()


def _document(toml: str) -> Any:
    return tomlkit.parse(toml.replace("\r\n", "\n"))


def _string(text: str, multiline: bool, literal: bool) -> String:
    """A TOML string in the style of these files: one line in double quotes, several in triple single quotes."""
    if "\n" in text[:-1] or (multiline and text.endswith("\n")):
        if _NOT_LITERAL.search(text):
            escaped = "\n".join(tomlkit.string(line).as_string()[1:-1] for line in text.split("\n"))
            return String(StringType.MLB, text, "\n" + escaped, Trivia())
        return String(StringType.MLL, text, "\n" + text, Trivia())
    if literal and not re.search(r"'|[^\S ]", text):
        return tomlkit.string(text, literal=True)
    return tomlkit.string(text)
