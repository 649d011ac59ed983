"""One model file in fewer bits."""
