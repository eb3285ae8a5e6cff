"""The settings of OpenSSL that its Python bindings have no function for.

In: `openssl.cnf` beside this file.  Out: OpenSSL, loaded with it.  OpenSSL reads the file that the
environment variable OPENSSL_CONF names, once, when it is loaded (config(5)).  So the variable
stands for that moment alone: the programs that we start shall not inherit it.

Invariant: nobody's settings are replaced.  An operator's own OPENSSL_CONF counts instead of ours; a
copy of OpenSSL that belongs to the system, and may be told there which algorithms are allowed, is
left alone; so is the interpreter's, which is loaded before.  What is set here saves time: 5 to 7
per cent of a handshake, both sides together.  No rule rests on it, since our contexts take no
ticket and accept none (`dataplane.tls_context`).
"""

from __future__ import annotations

import os
import pathlib
from typing import Final

_VARIABLE: Final = "OPENSSL_CONF"
_SETTINGS: Final = pathlib.Path(__file__).with_name("openssl.cnf")
_PLATFORMS: Final = ("-manylinux", "-musllinux", "-macosx", "-win")


def load_openssl() -> None:
    """Load OpenSSL with our settings; to be called before anything else imports it."""
    from importlib.metadata import distribution

    if _VARIABLE in os.environ or not has_own_copy(distribution("cryptography").read_text("WHEEL")):
        return
    import hashlib  # noqa: F401 - the interpreter's OpenSSL reads the system's settings now

    os.environ[_VARIABLE] = str(_SETTINGS)
    try:
        from OpenSSL import SSL  # noqa: F401 - loading it is what is wanted
    finally:
        del os.environ[_VARIABLE]


def has_own_copy(wheel: str | None) -> bool:
    """Whether a package that was installed so has a copy of OpenSSL in it.

    Args:
        wheel: its file WHEEL, None where it has none.  A wheel that is to run on any system has a
            tag that says so, and brings along what systems may not have; one that was built for a
            system, by its distributor or here, is linked with that system's libraries.
    """
    tags = [line for line in (wheel or "").splitlines() if line.startswith("Tag:")]
    return bool(tags) and all(any(name in tag for name in _PLATFORMS) for tag in tags)
