"""What of student and teacher belongs together: maps, classes, regions."""
