"""What differs between releases of Detectron2, and what makes release 0.6 run today."""
