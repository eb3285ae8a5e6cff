"""A TDX platform in software, with a development root of its own: for tests, demos and CI."""
