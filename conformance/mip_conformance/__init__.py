"""The conformance suite of the Memory Interchange Protocol: it runs cases against a server and tells what holds."""

__version__ = "0.1.0a1"
