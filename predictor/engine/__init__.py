"""One loaded model that answers many callers. It knows nothing of HTTP."""
