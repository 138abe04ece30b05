"""The patches made from templates, checked, read and applied to a commit."""
