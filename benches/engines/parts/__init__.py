"""What is measured, a module each; every one leaves figures and may leave facts for docs/scale.md."""
