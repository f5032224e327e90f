"""Data in shards: tar files with an index, written once, read in any order from here or from afar."""
