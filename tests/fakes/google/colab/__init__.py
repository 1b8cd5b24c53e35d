"""Stands in for what every Colab notebook has."""
