"""The format in numpy: packer, decoder and float64 attention, written from docs/formats.md and docs/align.md alone."""
