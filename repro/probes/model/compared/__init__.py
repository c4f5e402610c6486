"""What is in memory against what is in the files."""
