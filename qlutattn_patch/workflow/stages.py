"""The stages that an upstream goes through in the matrix, in their order."""

from __future__ import annotations

from typing import Literal, get_args

SOURCE: Literal["source"] = "source"  # before all: the upstream itself can not be had
Stage = Literal["anchors", "generated", "applied", "compiled", "aligned"]
Reached = Literal["source", Stage]
STAGES: tuple[Stage, ...] = get_args(Stage)
