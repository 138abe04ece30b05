"""Whether a JSON document is what docs/schemas says of its command."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema
from helpers import ROOT

SCHEMAS = ROOT / "docs" / "schemas"


@cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    path = SCHEMAS / f"{name}.json"
    assert path.is_file(), f"qlutattn {name} --json has no schema: name its record in commands/schemas.py"
    schema = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def check(document: Any) -> None:
    """Fail with every place where a document is not as its schema says."""
    assert isinstance(document, dict)
    name = "-".join(document[key] for key in ("command", "work", "task") if key in document)
    wrong = [f"{error.json_path}: {error.message}" for error in _validator(name).iter_errors(document)]
    assert not wrong, f"docs/schemas/{name}.json does not describe this:\n" + "\n".join(wrong[:20])
