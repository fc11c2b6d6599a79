"""Blob stores: bytes addressed by their SHA-256."""
