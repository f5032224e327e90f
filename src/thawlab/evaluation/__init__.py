"""Judging a classifier: predictions as a table, metrics as functions of it, calibration, diagnosis."""
