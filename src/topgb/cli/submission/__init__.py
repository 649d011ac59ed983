"""topgb submission: submissions to the challenge, put together and checked."""
