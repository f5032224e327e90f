"""Metrics as functions of labels, logits and probabilities. To add one, copy its neighbour in `standard`."""

from thawlab.evaluation.metrics import standard  # importing it registers them
from thawlab.evaluation.metrics.metric import ClassCounts, Scored, mean_over_images, metrics, of_class_counts, plain

__all__ = ["ClassCounts", "Scored", "mean_over_images", "metrics", "of_class_counts", "plain", "standard"]
