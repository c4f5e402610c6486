"""The command line and what a person sees. One file for each command; main lists them."""
