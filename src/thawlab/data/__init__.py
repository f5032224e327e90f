"""Images and labels: sources, splits, preprocessing, decoding into arrays, augmentation and batches."""
