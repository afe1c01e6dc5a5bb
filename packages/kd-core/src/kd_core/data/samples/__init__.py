"""Samples that worker processes read one by one: image files, data sets of a user."""
