"""Models by name and version: what is served, defaults, splits, loading and unloading."""
