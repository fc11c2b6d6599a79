"""Embedding models: text to vectors, deterministic per text whatever the batch."""
