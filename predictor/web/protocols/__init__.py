"""Protocols of other servers, one module or package each. No protocol imports another."""
