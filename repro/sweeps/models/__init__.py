"""The same question of sibling models."""
