"""Benchmarks: this gateway and the reference, side by side and interleaved; see tools/bench."""
