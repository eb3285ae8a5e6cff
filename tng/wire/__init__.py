"""Bytes to meaning and back: codecs and state machines without sockets or clocks."""
