"""``make bench``: this app beside the bare model and beside the app of the textbook.

Everything is measured in one run, in turns, on one set of weights, because the speed of a
machine drifts: the ratios count, and no figure of another day.
"""
