"""`python -m mip_conformance`."""

from mip_conformance.cli import main

main()
