"""topgb data: get records, look at them, check them, make them."""
