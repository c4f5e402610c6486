"""The words every other room uses: errors, records, the case, sentences, paths, chances. No torch, no run."""
