"""Drawn shapes, for the demo and for tests; training on real images needs nothing of it."""
