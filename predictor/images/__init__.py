"""Encoded bytes → upright sRGB image → pixels. The only package that imports Pillow."""
