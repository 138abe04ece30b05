"""Compare the types of templates/formats.toml with numpy's copy of them."""

from __future__ import annotations

from collections.abc import Sequence

from qlutattn_patch.proof.reference import tile
from qlutattn_patch.proof.reference.tile import CODES, Code
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.templates.formats import QuantType


def check_copy(types: Sequence[QuantType]) -> None:
    """Refuse a type of the project's own whose levels are not those that numpy judges it by."""
    for kind in types:
        if kind.name != f"qlutattn_{kind.side}{kind.bits}_128x128":
            continue  # a type that was added: numpy reads it from the table
        if Code(kind.levels, kind.rms_to_scale, kind.layout, kind.has_offset) != CODES[kind.bits]:
            raise ExpectedError(
                f"templates/formats.toml has other levels, or another scale or layout, for {kind.name} than numpy's "
                "copy, which must change too: align_attn is judged by it.",
                f"change CODES in {tile.__file__}, or take the change back",
            )
