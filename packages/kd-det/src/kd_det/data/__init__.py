"""Data of detection: COCO files, their check, and generated shapes."""
