"""The stages of an upstream in the matrix, in order."""

from __future__ import annotations

from typing import Literal, get_args

SOURCE: Literal["source"] = "source"  # before all others: getting the upstream itself
Stage = Literal["anchors", "generated", "applied", "compiled", "aligned"]
Reached = Literal["source", Stage]
STAGES: tuple[Stage, ...] = get_args(Stage)
