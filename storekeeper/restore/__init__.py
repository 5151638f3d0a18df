"""Putting a set back: the plan, the journal, the walk over all stores and the way back."""
