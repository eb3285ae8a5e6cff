"""RA-TLS: TLS 1.3 whose certificates carry evidence."""
