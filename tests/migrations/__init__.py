"""The application's own migrations, tried on a copy and carried out inside a safety set."""
