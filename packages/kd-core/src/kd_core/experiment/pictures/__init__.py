"""Pictures that several tasks draw with matplotlib."""
