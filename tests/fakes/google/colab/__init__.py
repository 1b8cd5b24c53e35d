"""A fake of the package that every Colab notebook has."""
