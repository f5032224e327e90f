"""Training: phases, the one loop, the feature cache, exact resumption."""
