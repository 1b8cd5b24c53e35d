"""One loaded model that answers many requests at once. It does not depend on HTTP."""
