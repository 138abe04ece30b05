"""Template texts rendered: jinja2 over the formats and the numbers of one llama.cpp."""

from __future__ import annotations

import re
from collections.abc import Mapping

import jinja2
from jinja2 import nodes

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.toml import MEND
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
        """Render a template; `where` is named if it is wrong."""
        try:
            return self._environment.from_string(template).render(self._context)
        except jinja2.TemplateSyntaxError as failure:
            raise ExpectedError(f"{where}, line {failure.lineno} of the template: {failure.message}.", MEND) from None
        except RecursionError:
            raise ExpectedError(f"{where}: the template is nested too deeply.", MEND) from None
        except Exception as failure:  # whatever an expression in a template can raise
            raise ExpectedError(f"{where}: the template fails: {failure}.", MEND) from None

    def template_line(self, template: str, at: int) -> int:
        """The line of a template, from 1 on, from which the character at an offset of the rendered text comes."""
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
        """An anchor with the numbers of this upstream in the place of `{{ upstream.NAME }}`; the rest is as it is."""

        def number(found: re.Match[str]) -> str:
            if found[1] not in self._upstream:
                raise ExpectedError(f"{where}: this llama.cpp has no '{found[1]}' (or it is not where it was).", MEND)
            return str(self._upstream[found[1]])

        return _NUMBER.sub(number, anchor)


def escaped(text: str) -> str:
    """A text as it must be written in a template to come out as it is."""
    return _TAG.sub("{{ '{' }}", text)


def _with_line_marks(node: nodes.Expr) -> list[nodes.Expr]:
    """A part of a template's output, with a mark that has the number of its line before it, or before each line."""
    if not isinstance(node, nodes.TemplateData):
        return [nodes.TemplateData(f"\0{node.lineno}\0"), node]
    lines = enumerate(node.data.split("\n"), node.lineno)
    return [nodes.TemplateData("\n".join(f"\0{number}\0{line}" for number, line in lines))]
