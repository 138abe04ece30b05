"""The stages that an upstream goes through in the matrix, in their order."""

from __future__ import annotations

SOURCE = "source"  # before all: the upstream itself can not be had
STAGES = ("anchors", "generated", "applied", "compiled", "aligned")
