"""Patch llama.cpp with QLUTATTN, build it, and prove the result."""

__version__ = "0.1.0"
