"""The squared error of other levels: the packer on Gaussian lanes, in units of their variance.

    python scripts/level_error.py 6,18,30,42,56,72,92,122 36,120 64

A codebook is the upper half of its levels, in units of 1/64. The packer's initial scale is optimised.
docs/quality.md has the results.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from qlutattn_patch.proof.reference.quantise import quantise
from qlutattn_patch.proof.reference.tile import SIZE, UNIT, Code


def main() -> None:
    """Print a line for each codebook: its levels, the best rms_to_scale, and the error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("levels", nargs="+", metavar="L,L,...")
    parser.add_argument("--lanes", type=int, default=10000)
    given = parser.parse_args()
    lanes = np.random.default_rng(99).standard_normal((given.lanes, SIZE)).astype(np.float16)
    for text in given.levels:
        upper = [int(level) for level in text.split(",")]
        bits = len(upper).bit_length()
        if len(upper) != 2 ** (bits - 1) or bits not in (1, 2, 4) or upper != sorted({*upper} - {0}) or upper[-1] > 127:
            parser.error(f"'{text}' is not an upper half of 2, 4 or 16 levels: 1, 2 or 8 rising numbers in 1...127")
        levels = (*(-level for level in reversed(upper)), *upper)
        # Lloyd-Max levels of deviation 1 have these norms; the best initial scale is near the one that gives this norm.
        likely = UNIT * {1: 0.7979, 2: 1.1150, 4: 1.4761}[bits] / np.sqrt(np.square(upper).mean())
        error, start = min(
            (_error(lanes, levels, likely * share), likely * share) for share in np.arange(0.94, 1.03, 0.02)
        )
        print(f"{text:32} {start:.4f}  {error:.6f}", flush=True)


def _error(lanes: NDArray[np.float16], levels: tuple[int, ...], start: float) -> float:
    exact = lanes.astype(np.float64)
    lost = quantise(lanes, Code(levels, start, "dot")).values() - exact
    return float(np.square(lost).sum() / np.square(exact).sum())


if __name__ == "__main__":
    main()
