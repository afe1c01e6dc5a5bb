"""Images without labels: which files they are, which are held out, which others have too."""
