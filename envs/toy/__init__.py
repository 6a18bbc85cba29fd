"""Small task families, vectorised in numpy."""
