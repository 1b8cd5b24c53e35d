"""This app's own endpoints."""
