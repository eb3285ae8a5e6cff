"""Oblivious HTTP: requests encrypted one by one to a key that the egress's TEE vouches for."""
