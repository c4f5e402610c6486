"""A user's script made smaller as a program, by its syntax tree."""
