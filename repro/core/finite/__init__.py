"""What the steps about finite numbers answer: held against float64, against another way, in narrower dtypes."""
