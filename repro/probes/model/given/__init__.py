"""Models that somebody's own code gives."""
