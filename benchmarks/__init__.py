"""``make bench``: compare this app with the bare model and with an app as tutorials write it.

One run measures all of them, in turns and with the same weights. The speed of a machine drifts, so
compare only figures of the same run: the ratios matter, not the absolute numbers.
"""
