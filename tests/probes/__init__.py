"""Unit tests of the probe kit, a file for each of its modules.

A package, so that a test file here may have the name of one beside it.
"""
