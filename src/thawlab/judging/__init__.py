"""Judging a trained classifier: its outputs, and a list of measures over them."""
