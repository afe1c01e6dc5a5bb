"""Criteria of detectors, importable without Detectron2. Others: `kd_core.criteria`."""
