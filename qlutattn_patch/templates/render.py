"""Render templates with jinja2, from the formats and the constants of one llama.cpp."""

from __future__ import annotations

import re
from collections.abc import Mapping

import jinja2
from jinja2 import nodes

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.toml import FIX
from qlutattn_patch.templates.formats import Formats

_NUMBER = re.compile(r"\{\{ upstream\.(\w+) \}\}")
_TAG = re.compile(r"\{(?=[{%#])")
_LINE_MARK = re.compile(r"\0(\d+)\0")


class Renderer:
    """Renders overlay and hook texts from the formats."""

    def __init__(self, formats: Formats, upstream: Mapping[str, int] | None = None) -> None:
        self._upstream = dict(upstream or {})
        self._environment = jinja2.Environment(
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,
        )
        self._context: dict[str, object] = {
            "types": formats.types,
            "tile": formats.tile,
            "books": formats.books,
            "upstream": self._upstream,
        }

    def text(self, template: str, where: str) -> str:
        """Render a template; errors name `where`."""
        try:
            return self._environment.from_string(template).render(self._context)
        except jinja2.TemplateSyntaxError as failure:
            raise ExpectedError(f"{where}, line {failure.lineno} of the template: {failure.message}.", FIX) from None
        except RecursionError:
            raise ExpectedError(f"{where}: the template is nested too deeply.", FIX) from None
        except Exception as failure:  # an expression in a template can raise anything
            raise ExpectedError(f"{where}: the template fails: {failure}.", FIX) from None

    def template_line(self, template: str, at: int) -> int:
        """The line of a template (from 1) that renders the character at an offset of the output."""
        ast = self._environment.parse(template)
        for output in ast.find_all(nodes.Output):
            output.nodes = [piece for node in output.nodes for piece in _with_line_marks(node)]
        _, *marked = _LINE_MARK.split(self._environment.from_string(ast).render(self._context))
        line, end = 1, 0
        for number, text in zip(marked[::2], marked[1::2], strict=True):
            if text and end <= at:
                line = int(number)
            end += len(text)
        return line

    def anchor(self, anchor: str, where: str) -> str:
        """An anchor with `{{ upstream.NAME }}` replaced by this upstream's constants; nothing else is rendered."""

        def number(found: re.Match[str]) -> str:
            if found[1] not in self._upstream:
                raise ExpectedError(f"{where}: this llama.cpp has no '{found[1]}' (or it has moved).", FIX)
            return str(self._upstream[found[1]])

        return _NUMBER.sub(number, anchor)


def page(template: str, context: Mapping[str, object]) -> str:
    """An HTML page; what is inserted is escaped."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=True
    )
    return environment.from_string(template).render(context)


def escaped(text: str) -> str:
    """A text escaped for a template, which renders it unchanged."""
    return _TAG.sub("{{ '{' }}", text)


def _with_line_marks(node: nodes.Expr) -> list[nodes.Expr]:
    """An output node of a template, with marks of line numbers before it, or before each line."""
    if not isinstance(node, nodes.TemplateData):
        return [nodes.TemplateData(f"\0{node.lineno}\0"), node]
    lines = enumerate(node.data.split("\n"), node.lineno)
    return [nodes.TemplateData("\n".join(f"\0{number}\0{line}" for number, line in lines))]
