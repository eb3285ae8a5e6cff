"""What the hardware's vendor says about its platforms: TCB info, QE identity, revocation lists.

`Collateral` is the set of nine members needed to judge one TDX quote, in the JSON form that
DCAP tools exchange (`from_json`, `to_json`).  `fetch_collateral` asks a PCCS, or Intel's own
service, for it: four GETs of the version 4 interface (Intel "PCS API v4").  The signed JSON is
cut out of the answer as it stands, because a signature covers its octets.  Nothing here is
believed yet: `tdx.dcap` verifies signatures, signers and dates.
"""

from __future__ import annotations

import contextlib
import json
import urllib.parse
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tng.attest.tdx.certificates import pck_certificate
from tng.errors import AppraiserError, ErrorCode

if TYPE_CHECKING:
    import httpx

    from tng.attest.tdx.quote import Quote

INTEL_PCS_URL: Final = "https://api.trustedservices.intel.com"
"""Intel's public service; needs no subscription for these four items."""

MAX_COLLATERAL_OCTETS: Final = 4 * 1024 * 1024
"""Of the JSON form as a whole; real ones have 20 KiB, revocation lists can grow."""

MAX_ITEM_OCTETS: Final = 1024 * 1024
"""Of one answer of a PCCS; an answer in full must also fit `MAX_COLLATERAL_OCTETS`."""

# Some tools add the PCK chain.  A quote of certification type 5 carries its own; taking the
# chain from anywhere else would let one quote be judged by another's certificate.
_IGNORED: Final = frozenset({"pck_certificate_chain"})


@dataclass(frozen=True, slots=True)
class Collateral:
    """The vendor's statements about one kind of platform.

    Attributes:
        pck_crl_issuer_chain: PEM, the PCK CA and the root.
        root_ca_crl: DER, revocations by the root.
        pck_crl: DER, revocations by the PCK CA.
        tcb_info_issuer_chain: PEM, the signer of `tcb_info` and the root.
        tcb_info: JSON text, exactly as signed.
        tcb_info_signature: 64 octets.
        qe_identity_issuer_chain: PEM, the signer of `qe_identity` and the root.
        qe_identity: JSON text, exactly as signed.
        qe_identity_signature: 64 octets.
    """

    pck_crl_issuer_chain: str
    root_ca_crl: bytes
    pck_crl: bytes
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: bytes
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: bytes

    @classmethod
    def from_json(cls, text: str | bytes) -> Collateral:
        """Read the JSON form.

        Args:
            text: an object of strings, binary members in hexadecimal; at most 4 MiB.

        Raises:
            AppraiserError: not a collateral (collateral_unavailable).
        """
        if len(text) > MAX_COLLATERAL_OCTETS:
            raise unavailable("collateral", f"has more than {MAX_COLLATERAL_OCTETS} octets")
        try:
            members = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise unavailable("collateral", "is not JSON") from exc
        if not isinstance(members, dict):
            raise unavailable("collateral", "is not a JSON object")
        expected = set(cls.__dataclass_fields__)
        if unknown := members.keys() - expected - _IGNORED:
            raise unavailable("collateral", f"has an unknown member {min(unknown)[:40]!r}")
        for name in sorted(expected):
            if not isinstance(members.get(name), str):
                raise unavailable("collateral", f"needs the text member {name!r}")
        return cls(
            pck_crl_issuer_chain=members["pck_crl_issuer_chain"],
            root_ca_crl=_from_hex(members, "root_ca_crl"),
            pck_crl=_from_hex(members, "pck_crl"),
            tcb_info_issuer_chain=members["tcb_info_issuer_chain"],
            tcb_info=members["tcb_info"],
            tcb_info_signature=_from_hex(members, "tcb_info_signature"),
            qe_identity_issuer_chain=members["qe_identity_issuer_chain"],
            qe_identity=members["qe_identity"],
            qe_identity_signature=_from_hex(members, "qe_identity_signature"),
        )

    def to_json(self) -> str:
        """The JSON form, members in a fixed order."""
        members = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps(
            {n: v.hex() if isinstance(v, bytes) else v for n, v in members.items()}, indent=1
        )


async def fetch_collateral(
    client: httpx.AsyncClient, quote: Quote, *, url: str = INTEL_PCS_URL
) -> Collateral:
    """Ask a PCCS for what is needed to judge `quote`.

    Args:
        client: sends the requests; its timeouts hold, its owner closes it.
        quote: names the platform by its FMSPC and its PCK CA.
        url: base address; `/sgx/certification/v4/` at the end is allowed, as in QCNL files.

    Raises:
        AppraiserError: an item could not be had; the message names it (collateral_unavailable).
        UntrustedPeerError: the quote's certificates do not say which platform it is.
    """
    base = url.rstrip("/").removesuffix("/sgx/certification/v4")
    pck = pck_certificate(quote)
    crl, crl_headers = await _get(
        client, f"{base}/sgx/certification/v4/pckcrl?ca={pck.ca}&encoding=der", "PCK CRL"
    )
    tcb, tcb_headers = await _get(
        client, f"{base}/tdx/certification/v4/tcb?fmspc={pck.fmspc.hex().upper()}", "TCB info"
    )
    identity, identity_headers = await _get(
        client, f"{base}/tdx/certification/v4/qe/identity?update=standard", "QE identity"
    )
    root_crl, _ = await _get(client, f"{base}/sgx/certification/v4/rootcacrl", "root CA CRL")
    tcb_info, tcb_info_signature = _signed(tcb, "tcbInfo", "TCB info")
    qe_identity, qe_identity_signature = _signed(identity, "enclaveIdentity", "QE identity")
    return Collateral(
        pck_crl_issuer_chain=_chain(crl_headers, ("SGX-PCK-CRL-Issuer-Chain",), "PCK CRL"),
        root_ca_crl=_der_or_hex(root_crl, "root CA CRL"),
        pck_crl=_der_or_hex(crl, "PCK CRL"),
        tcb_info_issuer_chain=_chain(
            tcb_headers, ("TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain"), "TCB info"
        ),
        tcb_info=tcb_info,
        tcb_info_signature=tcb_info_signature,
        qe_identity_issuer_chain=_chain(
            identity_headers, ("SGX-Enclave-Identity-Issuer-Chain",), "QE identity"
        ),
        qe_identity=qe_identity,
        qe_identity_signature=qe_identity_signature,
    )


def unavailable(item: str, problem: str) -> AppraiserError:
    """The error of collateral that could not be had or read."""
    return AppraiserError(f"{item} {problem}", code=ErrorCode.COLLATERAL_UNAVAILABLE)


async def _get(client: httpx.AsyncClient, url: str, item: str) -> tuple[bytes, httpx.Headers]:
    import httpx  # only who fetches needs an HTTP client

    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as exc:
        raise unavailable(item, f"has no valid address: {exc}; check the URL of the PCCS") from exc
    source = f"{address.host}{address.path}"  # without userinfo, which may be a secret
    body = bytearray()
    try:
        async with client.stream("GET", url, follow_redirects=False) as response:
            if response.status_code != 200:
                raise unavailable(
                    item, f"expected status 200 from {source}, got {response.status_code}"
                )
            octets = response.aiter_bytes()
            assert isinstance(octets, AsyncGenerator)  # so that it can be closed half-way
            async with contextlib.aclosing(octets) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > MAX_ITEM_OCTETS:
                        raise unavailable(item, f"from {source} exceeds {MAX_ITEM_OCTETS} octets")
            return bytes(body), response.headers
    except httpx.HTTPError as exc:
        raise unavailable(
            item, f"could not be fetched from {source}: {type(exc).__name__}"
        ) from exc


def _chain(headers: httpx.Headers, names: tuple[str, ...], item: str) -> str:
    for name in names:
        if value := headers.get(name):
            return urllib.parse.unquote(value)
    raise unavailable(item, f"came without the header {names[0]}")


def _signed(body: bytes, member: str, item: str) -> tuple[str, bytes]:
    """The text of one member exactly as it stands, and the signature beside it.

    The answer is `{"<member>":{...},"signature":"<hex>"}`; white space and order are free.
    """
    try:
        text = body.decode()
        whole = json.loads(text)
        signature = bytes.fromhex(whole["signature"])
        start = text.index("{", text.index(f'"{member}"'))
        value, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise unavailable(item, f"must be an object with {member!r} and 'signature'") from exc
    if set(whole) != {member, "signature"} or whole[member] != value:
        raise unavailable(item, f"must have the members {member!r} and 'signature' alone")
    return text[start:end], signature


def _der_or_hex(body: bytes, item: str) -> bytes:
    """A revocation list as DER, however it came: a DER SEQUENCE, or its hexadecimal text."""
    if body[:1] == b"\x30" and body[1:2] > b"\x7f":
        return body
    try:
        return bytes.fromhex(body.decode("ascii"))
    except ValueError as exc:
        raise unavailable(item, "is neither DER nor hexadecimal text") from exc


def _from_hex(members: dict[str, str], name: str) -> bytes:
    try:
        return bytes.fromhex(members[name])
    except ValueError as exc:
        raise unavailable("collateral", f"member {name!r} is not hexadecimal") from exc
