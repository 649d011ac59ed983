"""A user's own features to records: find them, check them, measure ranges, write shards and their description."""
