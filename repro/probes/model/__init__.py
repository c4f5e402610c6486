"""From files to a model, its inputs and its passes."""
