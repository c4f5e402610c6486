"""What the files of earlier jobs say, with no model run: logs, results, settings, overlap."""
