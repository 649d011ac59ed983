"""A person's videos and sounds to features: decode, pick frames and seconds of sound, and run the extractor's nets."""
