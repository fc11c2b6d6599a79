"""`python -m tools.engines build [NAME …]` and its sisters."""

from tools.engines.build import build

build()
