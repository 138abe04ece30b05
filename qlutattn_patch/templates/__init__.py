"""The templates read and rendered: formats, hooks, anchors."""
