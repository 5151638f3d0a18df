"""Telling people and other systems how runs ended."""
