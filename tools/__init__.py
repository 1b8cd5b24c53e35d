"""Tools for developers: ``make soak``, ``make fuzz`` and the generator of docs/settings.md."""
