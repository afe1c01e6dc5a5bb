"""Data of re-identification: a user's own, the layout of Market-1501, generated pedestrians."""
