"""The vocabulary that deploys are written in. What can lose or prove data is only asked for here; the host program does it."""
