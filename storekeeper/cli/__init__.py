"""Words typed, documents and text printed; no decision is made here."""
