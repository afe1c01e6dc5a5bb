"""Methods for detectors alone; none needs Detectron2 to be imported. Others: `kd_core.criteria`."""
