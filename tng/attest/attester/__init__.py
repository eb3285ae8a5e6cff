"""Sources of evidence about our own TEE."""
