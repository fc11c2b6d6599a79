"""MOS, the memory operating system: the use cases of the protocol, one module each, over the ports."""
