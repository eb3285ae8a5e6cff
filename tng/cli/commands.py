"""The commands of `tng`, in the order of `tng --help`: name and line of help.

The module `tng.cli.NAME` has the rest of a command.  It is loaded where the command is called for,
so that each command starts as fast as its own needs allow.
"""

from __future__ import annotations

from typing import Final

COMMANDS: Final = {
    "launch": "run a gateway",
    "exec": "run a program whose connections go through a gateway",
    "demo": "try everything on this machine, without a TEE",
    "trustee": "run an attestation service and key broker for this machine",
    "config": "check, show or describe a configuration",
    "verify": "judge a live egress",
    "audit": "check an audit log",
    "tools": "key broker client and other single tools",
}
"""Name to its line of help."""
