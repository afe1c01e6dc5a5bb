"""Teachers: detectors of Detectron2, and any other network that gives maps."""
