"""What a host knows about its stacks and sets, each read in one round trip."""
