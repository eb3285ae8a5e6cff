"""Several gateway processes on the same ports, under one supervisor."""
