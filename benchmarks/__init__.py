"""``make bench``: compare this app with the bare model and with an app like those in tutorials.

One run measures the three in turns, with the same weights. The speed of a machine drifts, so
compare only figures of the same run, and rather their ratios than the absolute numbers.
"""
