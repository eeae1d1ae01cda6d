"""Where lines come from, and the lines of each shard."""
