"""The cube: its commit log, the commitments that chain it, and what rollback, fork and verify read from it."""
