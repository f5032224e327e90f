"""Files that take a classifier along: its preprocessing, network, calibration and thresholds in one graph."""
