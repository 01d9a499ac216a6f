"""Mending a copy of a raw data set: what loses nothing is done unasked, what is a choice when it is named."""
