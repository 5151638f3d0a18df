"""Looking after the stores: what is asked of them, what is wrong inside them, and who is in the way."""
