"""Studies: one question, many runs; the runs of a study share caches and cores, and survive any interruption."""
