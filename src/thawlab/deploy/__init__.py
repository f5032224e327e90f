"""Using a trained classifier: prediction."""
