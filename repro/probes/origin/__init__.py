"""Where the bad value was made, by which mechanism, confirmed."""
