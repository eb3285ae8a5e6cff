"""The library that `tng exec` preloads, and what it is told.

In: the environment of `tng exec`.  Out: where the library is, and the environment of the program.
Source: TNG 2.12 (`TNG_HOOK_LIB`, `TNG_HOOK_INGRESS_MAPPINGS`, `TNG_HOOK_EGRESS_MAPPINGS`).
Invariant: an environment is made only for a library that the loader takes by that name.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from tng.errors import StartError

if TYPE_CHECKING:
    from tng.config.capture import EgressHook, Hook
    from tng.config.model import TngConfig

LIBRARY: Final = "libtng_hook.so"

PLACES: Final = (
    pathlib.Path(__file__).resolve().parent.parent / "preload" / LIBRARY,
    pathlib.Path("/usr/lib/tng") / LIBRARY,
)
"""Where it is looked for: in the package, and where a distribution puts it."""

_INGRESS: Final = "TNG_HOOK_INGRESS_MAPPINGS"
_EGRESS: Final = "TNG_HOOK_EGRESS_MAPPINGS"
_SEPARATORS: Final = re.compile(r"[\s:$]")
"""What ld.so takes for the end of a name in LD_PRELOAD, or for a variable in it."""


def find_library(
    environment: Mapping[str, str], places: tuple[pathlib.Path, ...] = PLACES
) -> pathlib.Path:
    """Where the library is.

    Args:
        environment: `TNG_HOOK_LIB` names it; otherwise `places` are tried.
        places: in order.

    Raises:
        StartError: it is nowhere, or where the loader cannot be told of.
    """
    named = environment.get("TNG_HOOK_LIB")
    if named:
        path = pathlib.Path(named).absolute()
        if not path.is_file():
            raise StartError(f"TNG_HOOK_LIB points to {named!r} but the file does not exist")
    else:
        found = [place for place in places if place.is_file()]
        if not found:
            tried = ", ".join(map(str, places))
            raise StartError(
                f"failed to resolve {LIBRARY} path: it is not in any of {tried}; it is compiled "
                "when the package is installed: install a C compiler (gcc) and then the package "
                "once more, or name the library in TNG_HOOK_LIB"
            )
        path = found[0]
    if _SEPARATORS.search(str(path)):
        raise StartError(
            f"{LIBRARY} is at {str(path)!r}: the loader takes no path with a space, a colon or a "
            "dollar sign; copy it elsewhere and name it in TNG_HOOK_LIB"
        )
    return path


def child_environment(
    config: TngConfig, environment: Mapping[str, str], library: str
) -> dict[str, str]:
    """The environment of the program.

    Args:
        config: with every port named.
        environment: ours.
        library: path of the library.
    """
    made = {name: value for name, value in environment.items() if name not in {_INGRESS, _EGRESS}}
    others = environment.get("LD_PRELOAD", "")
    made["LD_PRELOAD"] = f"{library}:{others}" if others else library
    ingresses = [_ingress(entry.hook) for entry in config.add_ingress if entry.hook]
    egresses = [moved for entry in config.add_egress if entry.hook for moved in _moved(entry.hook)]
    if ingresses:
        made[_INGRESS] = _dump({"ingresses": ingresses})
    if egresses:
        made[_EGRESS] = _dump({"entries": egresses})
    return made


def _ingress(hook: Hook) -> dict[str, object]:
    rules: list[dict[str, object]] = []
    for entry in hook.capture_dst:
        rule: dict[str, object] = {"host_cidr": entry.host or "*", "port": entry.port}
        if entry.port_end is not None:
            rule["port_end"] = entry.port_end
        rules.append(rule)
    return {
        "proxy_port": hook.proxy_port,
        "capture_rules": rules,
        "capture_local_traffic": hook.capture_local_traffic,
        "may_be_silent": True,
    }


def _moved(hook: EgressHook) -> list[dict[str, object]]:
    return [
        {"origin_port": rule.port, "real_port": rule.redirect_to_port}
        for rule in hook.capture_listen
    ]


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
