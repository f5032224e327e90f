"""Predicting more pictures than one machine would: sources in blocks, a Ray cluster that answers them, a folder of parts."""
