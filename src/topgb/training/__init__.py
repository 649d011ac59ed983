"""Train a recipe on records, to a model file."""
