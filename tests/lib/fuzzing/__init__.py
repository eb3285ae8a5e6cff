"""Parsers of what peers send, and octets to try them with; for `tools/fuzz` and the tests."""
