"""The command `kd`, over the tools of all tasks that are installed."""
