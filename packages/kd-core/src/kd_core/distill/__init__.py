"""Who learns what from whom: distiller, terms, teachers."""
