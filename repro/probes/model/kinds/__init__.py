"""What models take beside token ids: one module for each kind of input, and the choice between what they offer."""
