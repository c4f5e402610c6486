"""What a script is made smaller by; none of it knows whether the fault is still there."""
