"""Rules, looks and repairs on real stores."""
