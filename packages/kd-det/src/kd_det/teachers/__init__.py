"""Teachers that are not models of Detectron2: any network that gives maps."""
