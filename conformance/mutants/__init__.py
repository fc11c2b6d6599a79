"""The judge is judged: the reference server with one fault at a time, each of which the suite must find."""
