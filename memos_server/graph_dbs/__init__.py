"""Stores of the record: the cubes' logs, memories, relations, sessions, grants, jobs and the audit trail."""
