"""topgb model: look at model files, and make new ones from them."""
