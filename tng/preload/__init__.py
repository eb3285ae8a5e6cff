"""The library that `tng exec` puts before a program: C sources, and what is built of them.

`hook.c` stands in for some calls of libc, `calls.c` finds those; `proxy.c` talks to the gateway,
`mappings.c` reads what is captured, `endpoint.c` writes addresses.  `setup.py` makes
`libtng_hook.so` of them where there is a C compiler; nothing in Python loads it.
"""
