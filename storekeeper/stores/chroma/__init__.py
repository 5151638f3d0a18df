"""Chroma stores: a directory with one SQLite database and HNSW files, kept embedded by an application or by a Chroma server."""
