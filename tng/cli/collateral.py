"""Judges for the gateway's entries, with collateral from where this machine's operator says.

Sections and a clock in, a verifier out, as `attest.verifier.factory` makes it; what only the
command line may do is added: the environment and `/etc/sgx_default_qcnl.conf` are read, and only
if a section has the builtin attestation service, which is the one that needs them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tng.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tng.attest.tdx.collateral_settings import CollateralSettings
    from tng.attest.verifier.base import StatementVerifier
    from tng.attest.verifier.judgements import OnDecision
    from tng.clock import Clock
    from tng.config.model import Verify

QCNL_FILE: Final = Path("/etc/sgx_default_qcnl.conf")
"""Where Intel's tools keep the address of the PCCS."""

_MAX_QCNL: Final = 64 * 1024  # characters; the one that Intel ships has 2,000


def judge_with_surroundings(
    sections: tuple[Verify, ...], clock: Clock, on_decision: OnDecision | None = None
) -> StatementVerifier:
    """`make_any_verifier`, with the settings of this machine.

    Args:
        sections: of one entry.
        clock: the time of day.
        on_decision: told of every judgement; None for nobody.

    Raises:
        ConfigError: see `make_any_verifier`; or the settings cannot be used.
    """
    from tng.attest.verifier.factory import make_any_verifier
    from tng.attest.verifier.judgements import forget

    settings = settings_for(sections, os.environ, QCNL_FILE)
    return make_any_verifier(sections, clock, settings, on_decision or forget)


def settings_for(
    sections: tuple[Verify, ...], environment: Mapping[str, str], qcnl: Path
) -> CollateralSettings | None:
    """The settings of this machine, if a section needs any.

    Args:
        sections: of one entry.
        environment: variables by name.
        qcnl: the file of Intel's tools; it may be absent.

    Raises:
        ConfigError: the settings cannot be used.
    """
    if not any(section.as_type == "builtin" for section in sections):
        return None
    from tng.attest.tdx.collateral_settings import collateral_settings

    return collateral_settings(environment, _read(qcnl))


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_MAX_QCNL)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as exc:
        raise ConfigError([f"{path}: cannot be read: {exc}"]) from exc
