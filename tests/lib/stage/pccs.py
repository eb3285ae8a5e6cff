"""A PCCS without a socket."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable

import httpx
import trio

from tng.attest.tdx.collateral import Collateral

CRL = "/sgx/certification/v4/pckcrl"
TCB = "/tdx/certification/v4/tcb"
IDENTITY = "/tdx/certification/v4/qe/identity"
ROOT_CRL = "/sgx/certification/v4/rootcacrl"


def answers(collateral: Collateral) -> dict[str, httpx.Response]:
    """By path, what a PCCS with this collateral says."""

    def signed(member: str, text: str, signature: bytes) -> bytes:
        return f'{{"{member}":{text},"signature":"{signature.hex()}"}}'.encode()

    def chained(name: str, chain: str, content: bytes) -> httpx.Response:
        return httpx.Response(200, content=content, headers={name: urllib.parse.quote(chain)})

    c = collateral
    return {
        CRL: chained("SGX-PCK-CRL-Issuer-Chain", c.pck_crl_issuer_chain, c.pck_crl),
        TCB: chained(
            "TCB-Info-Issuer-Chain",
            c.tcb_info_issuer_chain,
            signed("tcbInfo", c.tcb_info, c.tcb_info_signature),
        ),
        IDENTITY: chained(
            "SGX-Enclave-Identity-Issuer-Chain",
            c.qe_identity_issuer_chain,
            signed("enclaveIdentity", c.qe_identity, c.qe_identity_signature),
        ),
        ROOT_CRL: httpx.Response(200, content=c.root_ca_crl.hex().encode()),
    }


class Network:
    """Hosts by name, each with what it says: collateral, an error, or silence."""

    def __init__(self, **hosts: Collateral | Exception | None) -> None:
        self.hosts = hosts
        self.asked: list[str] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host.partition(".")[0]
        self.asked.append(f"{host}{request.url.path}")
        match self.hosts[host]:
            case Collateral() as collateral:
                await trio.lowlevel.checkpoint()
                return answers(collateral)[request.url.path]
            case Exception() as error:
                raise error
            case _:
                await trio.sleep_forever()
        raise AssertionError

    def client(self) -> httpx.AsyncClient:
        """A client whose requests end here."""
        handler: Callable[[httpx.Request], httpx.Response] = self  # type: ignore[assignment]
        return httpx.AsyncClient(transport=httpx.MockTransport(handler))

    @property
    def fetches(self) -> list[str]:
        """Hosts in the order in which a fetch began there."""
        return [asked.partition("/")[0] for asked in self.asked if asked.endswith(CRL)]
