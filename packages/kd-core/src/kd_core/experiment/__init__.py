"""From config files to results."""
