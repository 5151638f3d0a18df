"""The declared model: stack files, references to secrets, and errors with line and column. The same on both sides of the wire."""
