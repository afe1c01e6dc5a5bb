"""One file a method: its pure function(s) and its module; import a criterion from its file."""
