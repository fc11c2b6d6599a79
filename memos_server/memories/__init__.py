"""Memory types: what a payload may be, what of it search sees, and how two merge."""
