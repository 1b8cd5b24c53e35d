"""One loaded model that answers many requests at once. It imports neither Flask nor torch."""
