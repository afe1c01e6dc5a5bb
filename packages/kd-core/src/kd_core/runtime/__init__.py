"""The process: console, seeds, other processes, signals."""
