"""Pristine llama.cpp: the pin, archives, releases, and their cached work trees."""
