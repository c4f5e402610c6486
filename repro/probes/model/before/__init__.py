"""What is asked before a library believes a file: how much memory, how much time, how long a text."""
