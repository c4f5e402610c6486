"""One process of the kit: packed, started, read, started again, recorded."""
