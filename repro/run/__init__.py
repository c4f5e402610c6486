"""One run from a request to a folder: steps, outputs, archive; and the same in a process of its own."""
