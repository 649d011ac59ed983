"""One function over many pieces of work, such as a data set's shards: in this process, or on a Ray cluster."""
