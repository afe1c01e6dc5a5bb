"""kd_reid."""
