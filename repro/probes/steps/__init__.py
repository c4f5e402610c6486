"""Further steps on the loaded model: single changes, the trace."""
