"""Candidates run and asked about, side by side, each where it can do no harm."""
