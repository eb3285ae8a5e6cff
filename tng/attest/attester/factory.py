"""The choice of an attester by the `attest` section of the configuration.

Each attester's module is imported only where it is chosen, so that starting costs what is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tng.attest.attester.base import Attester
from tng.attest.attester.ita import AnyAttester, ItaAttester
from tng.errors import ConfigError

if TYPE_CHECKING:
    from tng.config.model import Attest


def make_any_attester(attest: Attest) -> AnyAttester:
    """The source of evidence for the provider that the operator chose.

    Raises:
        ConfigError: as `make_attester`, or another provider's service is to take the evidence.
    """
    if attest.model == "passport" and attest.as_provider != attest.provider:
        raise ConfigError(
            [
                f"attest.as_provider: {attest.as_provider!r} does not take evidence of "
                f"aa_provider {attest.aa_provider!r}"
            ]
        )
    match attest.aa_provider, attest.aa_type:
        case "ita_asr", _ if attest.asr_addr:
            from tng.attest.attester.asr import AsrAttester

            return ItaAttester(AsrAttester(attest.asr_addr))
        case "ita", "uds" if attest.aa_addr:
            from tng.attest.attester.agent import AgentAttester

            return ItaAttester(AgentAttester(attest.aa_socket))
    return make_attester(attest)


def make_attester(attest: Attest) -> Attester:
    """The attester that the operator asked for, of the provider "coco".

    Raises:
        ConfigError: a provider or a type that this version cannot serve, or without its address.
    """
    match attest.aa_provider, attest.aa_type:
        case "coco_asr", _ if attest.asr_addr:
            from tng.attest.attester.asr import AsrAttester

            return AsrAttester(attest.asr_addr)
        case "coco", "uds" if attest.aa_addr:
            from tng.attest.attester.agent import AgentAttester

            return AgentAttester(attest.aa_socket)
        case "coco", "tsm":
            from tng.attest.attester.tsm import TsmAttester

            return TsmAttester()
        case "coco", "simulated" if attest.simulated_platform:
            from tng.attest.attester.simulated import SimulatedAttester

            return SimulatedAttester(Path(attest.simulated_platform))
    raise ConfigError(
        [
            f"attest: no evidence source for aa_provider {attest.aa_provider!r} with aa_type "
            f"{attest.aa_type!r} and the addresses given"
        ]
    )
