"""Run align_attn and check its dump in numpy."""
