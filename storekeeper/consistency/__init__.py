"""What the stores of a stack must agree on: which documents each place holds, what disagrees, and since when."""
