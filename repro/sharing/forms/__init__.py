"""The bug form of a receiving project, filled from a run."""
