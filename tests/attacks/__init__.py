"""Attacks on the product: what it is given, and what must hold all the same. ``attack`` says what a row is."""
