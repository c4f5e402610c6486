"""Fuzzers of the readers of foreign bytes, by hypothesis: each input is read, or refused by the room's own error."""
