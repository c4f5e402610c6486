"""Which failing prompts several runs, lists or logs share, and whether that could be chance."""
