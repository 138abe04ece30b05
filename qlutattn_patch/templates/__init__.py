"""Reading and rendering of templates: formats, hooks, anchors."""
