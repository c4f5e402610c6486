"""What a model does beyond one forward pass: a generation, and steps of a training."""
