"""What a person sees: progress on stderr, a summary on stdout. Colour follows NO_COLOR and TERM, as rich does."""
