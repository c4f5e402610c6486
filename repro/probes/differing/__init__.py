"""Two ways of running the same weights on the same inputs: the first place that differs beyond rounding."""
