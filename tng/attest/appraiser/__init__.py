"""Clients of attestation services: evidence in, token out."""
