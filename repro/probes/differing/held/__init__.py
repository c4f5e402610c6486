"""One way recorded, and another held against it, tensor by tensor, with what rounding does there."""
