"""One module a verb of the contract: the walk, readable from top to bottom."""
