"""The step to which kernels round a vector before its product with a tile."""

from __future__ import annotations

import numpy as np

from qlutattn_patch.proof.reference.tile import Double

# The integer up to which each kind of kernel rounds x: four add up in a byte (lut), 8 bits (dot), 7 bits (dot7).
STEPS = {"lut": 63, "dot": 127, "dot7": 64}
EQUAL = 1e-5  # magnitudes this close round to the same integer


def arithmetic(kernel: str) -> str:
    """The kind of a kernel: "lut-avx2" is a "lut"."""
    return kernel.partition("-")[0]


def step(x: Double, kernel: str) -> Double:
    """The rounding step of a tile's vectors x [..., depth]; 0 for the exact ones, whose rounding changes nothing."""
    size: Double = np.abs(x)
    top: Double = np.asarray(size.max(axis=-1))
    same = ((size == 0) | (size >= top[..., None] * (1 - EQUAL))).all(axis=-1)
    return np.where(same, 0.0, top / STEPS[arithmetic(kernel)])
