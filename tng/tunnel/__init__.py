"""In which order bytes and trust happen."""
