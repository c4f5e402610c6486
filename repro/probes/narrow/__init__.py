"""What a run in a narrower dtype would do, told from wide arithmetic."""
