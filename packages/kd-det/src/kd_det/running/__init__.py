"""What happens beside training: the dry run, the list of taps, logs, the machine, larger tests."""
