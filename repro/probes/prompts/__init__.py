"""Many prompts in batches."""
