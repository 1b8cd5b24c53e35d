"""Other servers' protocols, one module each. None imports another."""
