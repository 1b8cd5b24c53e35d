"""This app's own endpoints, one module each. No module imports another."""
