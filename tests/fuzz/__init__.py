"""Fuzzing: every place where untrusted bytes come in, tried with random and kept inputs."""
