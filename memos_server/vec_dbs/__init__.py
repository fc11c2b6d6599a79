"""Search indexes: structures derived from the record, per cube, that can always be rebuilt from its log."""
