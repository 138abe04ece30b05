"""What the templates say, worked out: jinja2 texts, and hooks placed at their anchors."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import jinja2.sandbox
from jinja2 import meta, nodes

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.toml import MEND
from qlutattn_patch.templates.formats import Formats
from qlutattn_patch.templates.spec import Hook

_CANDIDATES = 3
# A template is a table with words around it: what it may be made of is little, and ends soon.
_ALLOWED = (
    *(nodes.Template, nodes.TemplateData, nodes.Output, nodes.For, nodes.If, nodes.Name, nodes.Const),
    *(nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Tuple, nodes.List, nodes.Call, nodes.Keyword),
    *(nodes.Filter, nodes.Test),
    *(nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos),
    *(nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Concat),
)
_FILTERS = ("abs", "first", "join", "last", "length", "lower", "max", "min", "sort", "sum", "trim", "upper")
_DEEPEST = 2  # loops in loops
_LONGEST = 1000  # numbers in a range
_NUMBER = re.compile(r"\{\{ upstream\.(\w+) \}\}")
# NUL, which no text of ours may have, marks what is from where: \0N\0 literal N, \0:LINE\0 an expression, \0\0 its end
_MARK = re.compile(r"\0(:?\d*)\0")


@dataclass(frozen=True)
class Span:
    """A part of a rendered text: the template's own from the offset `at` on, or (None) made in its `line`."""

    text: str
    at: int | None
    line: int = 1


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """A sandbox in which a product is one of numbers, and a range is short."""

    intercepted_binops = frozenset(["*", "%"])

    def call_binop(self, context: object, operator: str, left: Any, right: Any) -> Any:
        if not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
            raise TypeError(f"'{operator}' is for numbers only")
        return left * right if operator == "*" else left % right


class Renderer:
    """Renders overlay and hook texts from the formats."""

    def __init__(self, formats: Formats, upstream: Mapping[str, int] | None = None) -> None:
        self._upstream = dict(upstream or {})
        self._environment = _Environment(
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,
        )
        self._environment.globals = {"range": _range}
        self._context: dict[str, object] = {
            "types": formats.types,
            "tile": formats.tile,
            "books": formats.books,
        }
        self._context["upstream"] = self._upstream

    def text(self, template: str, where: str) -> str:
        """Render a template; `where` is named if it is wrong."""
        try:
            _refuse_what_is_no_table(self._environment.parse(template))
            return self._environment.from_string(template).render(self._context)
        except jinja2.TemplateSyntaxError as failure:
            raise ExpectedError(f"{where}, line {failure.lineno} of the template: {failure.message}.", MEND) from None
        except RecursionError:
            raise ExpectedError(f"{where}: the template is nested too deeply.", MEND) from None
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as failure:
            raise ExpectedError(f"{where}: the template fails: {failure}.", MEND) from None

    def spans(self, template: str, where: str) -> list[Span]:
        """A rendered template in parts: which are its own text, and where that is in it, and which are made."""
        whole = self.text(template, where)
        literals = [(at, value) for kind, at, value in self._tokens(template) if kind == "data"]
        ast = self._environment.parse(template)
        found = list(ast.find_all(nodes.TemplateData))
        if [node.data for node in found] != [value for _, value in literals]:
            return [Span(whole, None)]
        for number, node in enumerate(found):
            node.data = f"\0{number}\0{node.data}\0\0"
        for output in ast.find_all(nodes.Output):
            output.nodes = [node if isinstance(node, nodes.TemplateData) else _marked(node) for node in output.nodes]
        spans = _unmarked(self._environment.from_string(ast).render(self._context), literals)
        return spans if "".join(span.text for span in spans) == whole else [Span(whole, None)]

    def seams(self, template: str) -> list[int]:
        """The offsets in a template at which text may be put between its tags."""
        found = {0, len(template)}
        for kind, at, value in self._tokens(template):
            if kind == "data":
                found |= {at, at + len(value)}
            elif kind.endswith("_begin"):
                found.add(at)
            elif kind.endswith("_end"):
                found.add(at + len(value))
        return sorted(found)

    def names(self, template: str) -> list[str]:
        """The tables that a template takes something from."""
        return sorted(meta.find_undeclared_variables(self._environment.parse(template)))

    def _tokens(self, template: str) -> list[tuple[str, int, str]]:
        """A template's tokens: kind, offset, text. White space that jinja2 takes out is in none of them."""
        found, at = [], 0
        for _, kind, value in self._environment.lex(template):
            at = template.index(value, at)
            found.append((kind, at, value))
            at += len(value)
        return found

    def anchor(self, anchor: str, where: str) -> str:
        """An anchor with the numbers of this upstream in the place of `{{ upstream.NAME }}`; the rest is as it is."""

        def number(found: re.Match[str]) -> str:
            if found[1] not in self._upstream:
                raise ExpectedError(f"{where}: this llama.cpp has no '{found[1]}' (or it is not where it was).", MEND)
            return str(self._upstream[found[1]])

        return _NUMBER.sub(number, anchor)


def _marked(node: nodes.Expr) -> nodes.Expr:
    begin, end = nodes.Const(f"\0:{node.lineno}\0"), nodes.Const("\0\0")
    return nodes.Concat([begin, node, end], lineno=node.lineno)


def _unmarked(marked: str, literals: Sequence[tuple[int, str]]) -> list[Span]:
    """The spans of a text with marks in it; a literal that did not come through as it is counts as made."""
    spans: list[Span] = []
    open_marks: list[str] = []
    line = 1
    text, *rest = _MARK.split(marked)
    for mark, after in zip(rest[::2], rest[1::2], strict=True):
        if mark:
            open_marks.append(mark)
        elif open_marks:
            open_marks.pop()
        inner = open_marks[-1] if open_marks else ""
        line = next((int(one[1:]) for one in reversed(open_marks) if one.startswith(":")), line)
        literal = literals[int(inner)] if inner.isdigit() else None
        if after:
            spans.append(Span(after, literal[0] if literal and literal[1] == after else None, line))
    return [Span(text, None), *spans] if text else spans


@dataclass(frozen=True)
class Placed:
    """A variant of a hook in its place: its anchor and its text as they are in this upstream."""

    variant: Hook
    anchor: str
    text: str

    def into(self, text: str) -> str:
        """The text of the file with the hook in it."""
        return text.replace(self.anchor, self.replacement)

    @property
    def replacement(self) -> str:
        """What stands where the anchor stood."""
        new = {"after": self.anchor + self.text, "before": self.text + self.anchor, "replace": self.text}
        return new[self.variant.place]


def _refuse_what_is_no_table(node: nodes.Node, depth: int = 0) -> None:
    """Refuse macros, includes, calls and whatever else could reach further, or run longer, than a table needs to."""
    what = None
    if not isinstance(node, _ALLOWED):
        what = f"'{type(node).__name__.lower()}'"
    elif isinstance(node, nodes.Filter) and node.name not in _FILTERS:
        what = f"the filter '{node.name}'"
    elif isinstance(node, nodes.Call) and not _is_harmless(node):
        what = "a call of anything but 'range' and 'items'"
    elif isinstance(node, nodes.For):
        depth += 1
        what = "a recursive loop" if node.recursive else None
    if depth > _DEEPEST:
        what = f"more than {_DEEPEST} loops in one another"
    if what:
        raise jinja2.TemplateSyntaxError(f"{what} is not for templates of tables", node.lineno)
    for child in node.iter_child_nodes():
        _refuse_what_is_no_table(child, depth)


def _is_harmless(call: nodes.Call) -> bool:
    if isinstance(call.node, nodes.Name):
        return call.node.name == "range"
    return isinstance(call.node, nodes.Getattr) and call.node.attr == "items"


def _range(*numbers: int) -> range:
    found = range(*numbers)
    if len(found) > _LONGEST:
        raise ValueError(f"a range is too long ({len(found)} numbers; the longest has {_LONGEST})")
    return found


@dataclass(frozen=True)
class Tried:
    """A variant of a hook that was tried: its anchor as it must be in this upstream, and what was found."""

    variant: Hook
    anchor: str
    found: int | None  # None: there is no such file
    candidates: tuple[tuple[int, str], ...] = ()

    @property
    def fits(self) -> bool:
        return self.found == self.variant.count

    def __str__(self) -> str:
        if self.found is None:
            return "there is no such file"
        times = "once" if self.variant.count == 1 else f"{self.variant.count} times"
        return f"the anchor '{first_line(self.anchor)}' must be there {times}, and is there {self.found} times"


@dataclass(frozen=True)
class AnchorFailure:
    """A hook that does not fit in any variant, or in several, and the hook to blame if it only follows from another."""

    hook: Hook
    tried: tuple[Tried, ...]
    cascade_of: Hook | None = None

    @property
    def lines(self) -> list[str]:
        """What is wrong, in words: one line, and more for what was found near it."""
        because = f" (follows from {self.cascade_of.where})" if self.cascade_of else ""
        fitting = [tried for tried in self.tried if tried.fits]
        if fitting:
            anchors = " and ".join(f"'{first_line(tried.anchor)}'" for tried in fitting)
            return [f"{self.hook.where}: {self.hook.file}: more than one of its variants fits: {anchors}{because}"]
        lines = []
        for tried in self.tried:
            lines.append(f"{tried.variant.where}: {tried.variant.file}: {tried}{because}")
            lines += [f"    near it, line {number}: {line}" for number, line in tried.candidates]
        return lines


class HooksDoNotFit(ExpectedError):
    """An upstream that the templates do not fit: what its own tables say against it, and the hooks' failures."""

    def __init__(self, upstream: str, problems: Sequence[str], failures: Sequence[AnchorFailure]) -> None:
        self.problems = tuple(problems)
        self.failures = tuple(failures)
        lines = []
        if problems:
            lines += [f"The tables of {upstream} do not suit:", *(f"  {problem}" for problem in problems)]
        if failures:
            lines += _listed(upstream, failures)
        if problems and not failures:
            hint = "give our types other ids or names in templates/formats.toml, or pin another llama.cpp"
        else:
            hint = "mend the anchors that are named, then: qlutattn generate"
        super().__init__("\n".join(lines), hint)


class Placer:
    """Places hooks one after another into the texts of files, and collects every one that does not fit."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._failed: list[tuple[Hook, str]] = []
        self.failures: list[AnchorFailure] = []
        self.placed: list[Placed] = []

    def place(self, hook: Hook, texts: Mapping[str, str]) -> tuple[str, str] | None:
        """The file that the hook edits and its text with the hook in it, or None if the hook does not fit."""
        tried = tuple(self._try(variant, texts) for variant in (hook, *hook.variants))
        fitting = [one for one in tried if one.fits]
        if len(fitting) != 1:
            self.failures.append(AnchorFailure(hook, tried, self._blame(hook, tried)))
            self._failed += [(one.variant, self._renderer.text(one.variant.text, one.variant.where)) for one in tried]
            return None
        variant = fitting[0].variant
        placed = Placed(variant, fitting[0].anchor, self._renderer.text(variant.text, variant.where))
        self.placed.append(placed)
        return variant.file, placed.into(texts[variant.file])

    def _try(self, variant: Hook, texts: Mapping[str, str]) -> Tried:
        anchor = self._renderer.anchor(variant.anchor, variant.where)
        text = texts.get(variant.file)
        found = None if text is None else text.count(anchor)
        return Tried(variant, anchor, found, () if text is None or found else nearest_lines(text, anchor))

    def _blame(self, hook: Hook, tried: tuple[Tried, ...]) -> Hook | None:
        """The earlier failure that this one follows from: its text has the anchor, or the same file is missing."""
        for earlier, text in self._failed:
            for one in tried:
                if earlier.file == one.variant.file and (one.found is None or one.anchor in text):
                    return earlier
        return None

    def check(self, upstream: str, problems: Sequence[str] = ()) -> None:
        """Raise one error that lists every failure, the root causes before those that follow from them."""
        if self.failures or problems:
            raise HooksDoNotFit(upstream, problems, self.failures)


def nearest_lines(text: str, anchor: str) -> tuple[tuple[int, str], ...]:
    """The lines of a text (numbered from 1) that an anchor should be mended to.

    Where the anchor begins in the text, that is the first line in which the two differ; else the lines that look most
    like the anchor's first one.
    """
    lines, wanted = text.splitlines(), anchor.splitlines()
    skipped = next(at for at, line in enumerate(wanted) if line.strip())
    starts = [at for at, line in enumerate(lines) if line.strip() == wanted[skipped].strip()]
    parted = {at + _agreeing(lines[at:], wanted[skipped:]) for at in starts}
    if parted and len(wanted) > skipped + 1:
        there = [at for at in sorted(parted) if at < len(lines)]
        return tuple((at + 1, lines[at].strip()) for at in there[:_CANDIDATES])
    numbered: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        numbered.setdefault(line.strip(), number)
    near = difflib.get_close_matches(first_line(anchor), numbered, n=_CANDIDATES, cutoff=0.6)
    return tuple((numbered[line], line) for line in near)


def _agreeing(lines: list[str], wanted: list[str]) -> int:
    """How many lines from the first on are the same; at least that one, which may differ in its indentation."""
    pairs = enumerate(zip(lines[1:], wanted[1:], strict=False), 1)
    return next((at for at, (line, ours) in pairs if line != ours), min(len(lines), len(wanted)))


def first_line(anchor: str) -> str:
    """The first line of an anchor that is not blank."""
    return next(line.strip() for line in anchor.splitlines() if line.strip())


def _listed(upstream: str, failures: Sequence[AnchorFailure]) -> list[str]:
    roots = [failure for failure in failures if failure.cascade_of is None]
    cascades = [failure for failure in failures if failure.cascade_of is not None]
    count = f"{len(failures)} hook does" if len(failures) == 1 else f"{len(failures)} hooks do"
    lines = [f"{count} not fit {upstream}:", *(f"  {line}" for failure in roots for line in failure.lines)]
    if cascades:
        lines.append("  These follow from the ones above:")
        lines += [f"  {line}" for failure in cascades for line in failure.lines]
    return lines
