"""What a model is and where it comes from. The only package that imports torch."""
