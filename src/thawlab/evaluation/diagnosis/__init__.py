"""Diagnoses: known mistakes that the recipe, the curves or the results show."""
