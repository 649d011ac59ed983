"""Recipe and records to a model file."""
