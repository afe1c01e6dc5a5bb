"""Teacher outputs for every image of every epoch, stored by a first run and read by later ones."""
