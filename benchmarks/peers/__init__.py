"""Other servers, each as its own documentation serves a classifier (``make bench-peers``)."""
