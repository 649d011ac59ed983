"""Several model files, or a file and records, to one model file."""
