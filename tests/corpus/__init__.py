"""Injected faults with known truth, and their sound twins. README.md in this folder has the tables.

`families` builds tiny models, `files` edits safetensors files by hand, `faults` puts the two together: each entry of
`faults.FAULTS` writes one model folder and says what must be found in it. Nothing here uses the code under test.
"""
