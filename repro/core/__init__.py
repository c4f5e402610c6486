"""The words every other room uses: errors, records, the case, the answer, sentences, paths."""
