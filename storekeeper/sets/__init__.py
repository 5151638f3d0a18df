"""Backup sets: the repository that holds them, how one is made and published, named, verified, kept and removed."""
