"""Presets, tools, cmake and ninja, and what a build and a result are made from."""
