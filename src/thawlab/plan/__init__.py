"""Closing a recipe: defaults, names and every setting that the user left open."""
