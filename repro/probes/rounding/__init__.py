"""Rounding or error: each operator held against float64 on the very inputs that it got."""
