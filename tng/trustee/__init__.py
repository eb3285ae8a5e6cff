"""The embedded attestation service, a process of its own."""
