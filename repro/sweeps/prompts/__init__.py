"""The same question of many prompts."""
