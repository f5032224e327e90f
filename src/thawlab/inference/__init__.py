"""Running frozen networks: batches, the feature cache, folding and cutting."""
