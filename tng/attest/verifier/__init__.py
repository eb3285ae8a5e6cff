"""Judges: a peer's certificate in, an `AttestedPeer` or a refusal out."""
