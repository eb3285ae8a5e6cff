"""How bytes move between established ends.  Knows nothing of trust."""
