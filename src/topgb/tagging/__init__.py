"""Videos through a model: their tags, and when in the video each of them holds."""
