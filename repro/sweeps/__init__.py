"""One question asked many times: over cells, releases, models, prompts."""
