"""kd_det."""
