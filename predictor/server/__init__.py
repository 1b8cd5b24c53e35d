"""Processes and sockets. The only package that imports gunicorn and werkzeug's server."""
