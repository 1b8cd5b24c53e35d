"""Long-running checks of the whole app: soak and fuzz."""
