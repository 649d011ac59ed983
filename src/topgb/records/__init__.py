"""Files to batches: TFRecord framing, the Example codec, shards, sampling, data sets, checks and synthetic data."""
