"""Models: how to find, load and run them. The only package that imports torch."""
