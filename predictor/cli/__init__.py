"""The commands. They stand above all other packages."""
