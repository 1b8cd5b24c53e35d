"""Encoded bytes → upright RGB image → pixels. The only package that imports Pillow."""
