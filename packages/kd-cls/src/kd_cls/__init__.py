"""kd_cls."""
