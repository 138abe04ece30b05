"""docs/schemas: the JSON Schema of each command's document, generated from its record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from qlutattn_patch.commands.documents import (
    ApplyDocument,
    BuildDocument,
    CacheDocument,
    CompletionDocument,
    DoctorDocument,
    GenerateDocument,
    InstallDocument,
    ReportDocument,
    RevertDocument,
    TypesDocument,
    VendorDocument,
    WheelDocument,
)
from qlutattn_patch.export.export import Exported
from qlutattn_patch.measure.documents import BenchDocument, EvalDocument, ProfileDocument, SamplingDocument
from qlutattn_patch.measure.sizes import SizeDocument
from qlutattn_patch.proof.documents import AlignDocument, OutliersDocument
from qlutattn_patch.workflow.documents import BisectDocument, MatrixDocument, RebaseDocument, StatusDocument

DOCUMENTS: dict[str, type[msgspec.Struct]] = {
    "align": AlignDocument,
    "apply": ApplyDocument,
    "bench": BenchDocument,
    "bisect": BisectDocument,
    "build": BuildDocument,
    "cache": CacheDocument,
    "completion": CompletionDocument,
    "doctor": DoctorDocument,
    "eval": EvalDocument,
    "export": Exported,
    "generate": GenerateDocument,
    "install": InstallDocument,
    "matrix": MatrixDocument,
    "profile": ProfileDocument,
    "rebase": RebaseDocument,
    "report": ReportDocument,
    "revert": RevertDocument,
    "run": AlignDocument,
    "size": SizeDocument,
    "status": StatusDocument,
    "types": TypesDocument,
    "vendor": VendorDocument,
    "wheel": WheelDocument,
}
# other documents of a command, by its name and what an option asks for
OTHERS: dict[str, type[msgspec.Struct]] = {"bench-sampling": SamplingDocument, "eval-outliers": OutliersDocument}
_OPTIONS = {"bench": "--work", "eval": "--task"}
_WIDTH = 100
_MAY_FAIL = ("align", "doctor", "export", "generate", "matrix", "profile", "run")


def files(root: Path) -> dict[Path, bytes]:
    """The schemas by path; none if the project does not document them."""
    if not (root / "docs" / "json.md").is_file():
        return {}
    folder = root / "docs" / "schemas"
    return {folder / f"{command}.json": f"{_laid_out(schema(command))}\n".encode() for command in DOCUMENTS | OTHERS}


def schema(name: str) -> dict[str, Any]:
    """The schema of a command's document."""
    kind = (DOCUMENTS | OTHERS)[name]
    command, _, asked = name.partition("-")
    _, found = msgspec.json.schema_components((kind,), ref_template="#/$defs/{name}")
    parts = {name: _tidy(part) for name, part in found.items()}
    document = parts.pop(kind.__name__)
    may_fail = command in _MAY_FAIL
    ok = "true: the exit code is 0" + ("; false: it is 1, a check failed" if may_fail else "")
    envelope = {
        "schema": {"const": 1, "description": "the version of this document"},
        "command": {"const": command, "description": "the command that printed it"},
        "ok": {**({"type": "boolean"} if may_fail else {"const": True}), "description": ok},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"qlutattn {command}{asked and f' {_OPTIONS[command]} {asked}'} --json",
        **document,
        "required": list(dict.fromkeys([*envelope, *document["required"]])),
        "properties": envelope | {key: one for key, one in document["properties"].items() if key not in envelope},
        **({"$defs": parts} if parts else {}),
    }


def _tidy(node: Any) -> Any:
    """The schema as printed: keys with a default are required too; a choice of types is a list."""
    if isinstance(node, list):
        return [_tidy(one) for one in node]
    if not isinstance(node, dict):
        return node
    if "properties" in node:
        keys = {key: _tidy(one) for key, one in node["properties"].items()}
        needed = [key for key, one in keys.items() if key in node["required"] or "default" in one]
        for one in keys.values():
            one.pop("default", None)
        return {key: value for key, value in node.items() if key != "title"} | {"properties": keys, "required": needed}
    made = {key: _tidy(value) for key, value in node.items()}
    choices = sorted(made.pop("anyOf", []), key=lambda one: one.get("type") == "null")
    types = [one.get("type") for one in choices]
    if choices and all(types):
        made |= {key: value for one in choices for key, value in one.items()}
        types = [name for name in types if name != "integer" or "number" not in types]
        made["type"] = types if len(types) > 1 else types[0]
    elif choices:
        made["anyOf"] = choices
    return made


def _laid_out(node: Any, indent: str = "") -> str:
    """JSON in which each value that fits on one line is on one line."""
    line = json.dumps(node, ensure_ascii=False)
    if len(indent + line) <= _WIDTH or not isinstance(node, (dict, list)):
        return line
    deeper = indent + "  "
    if isinstance(node, dict):
        parts = [f"{json.dumps(key)}: {_laid_out(value, deeper)}" for key, value in node.items()]
    else:
        parts = [_laid_out(value, deeper) for value in node]
    opening, closing = "{}" if isinstance(node, dict) else "[]"
    return opening + ",".join(f"\n{deeper}{part}" for part in parts) + f"\n{indent}{closing}"
