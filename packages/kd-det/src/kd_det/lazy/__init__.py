"""LazyConfigs: Detectron2's configs in Python, as students and teachers."""
