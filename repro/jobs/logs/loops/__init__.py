"""What training loops print: names that are NaN or Inf, tables, losses, loss scalers, event files."""
