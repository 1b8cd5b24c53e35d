"""One loaded model answers many requests at once. This package imports neither Flask nor torch."""
