"""Encoded files → upright sRGB images → pixels. The only package that imports Pillow."""
