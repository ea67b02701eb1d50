"""Data from outside and the small pieces of files: hashes.txt, slices, sources."""
