"""Metrics as functions of labels, logits and probabilities."""
