"""The parts of `make bench`: each measures some figures beside their limit or rival."""
