"""Sets of prompts against each other."""
