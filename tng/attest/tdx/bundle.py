"""Collateral from files, to judge a quote without a network.

A file in the JSON form of `tdx.collateral`, or a folder, and a quote go in; the collateral for the
quote's platform comes out, the newest where there are several.  A folder holds such files, or is
one that a PCCS client has filled (`tdx.collateral_cache`).  Nothing in it is believed yet:
`tdx.dcap` verifies signatures, signers and dates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tng.attest.tdx.certificates import pck_certificate
from tng.attest.tdx.collateral import MAX_COLLATERAL_OCTETS, Collateral, unavailable
from tng.attest.tdx.collateral_cache import CollateralFolder
from tng.attest.tdx.vendor_statements import VendorStatements, parse_statements
from tng.errors import AppraiserError

if TYPE_CHECKING:
    from pathlib import Path

    from tng.attest.tdx.certificates import PckCertificate
    from tng.attest.tdx.quote import Quote

MAX_FILES: Final = 256
"""Files of a folder that are looked at; there are a few dozen kinds of platforms."""


def collateral_from_files(path: Path, quote: Quote) -> Collateral:
    """Collateral for the platform that `quote` names.

    Args:
        path: one file, or a folder whose `*.json` files are looked at; others in it are left
            alone, and so are JSON files of another form.
        quote: see `tdx.quote`.

    Raises:
        AppraiserError: none there is for this platform (collateral_unavailable).
        UntrustedPeerError: the quote does not say which platform it is.
    """
    pck = pck_certificate(quote)
    if path.is_file():
        return Collateral.from_json(_read(path))
    files = sorted(path.glob("*.json"))
    if len(files) > MAX_FILES:
        raise unavailable(str(path), f"has more than {MAX_FILES} files")
    candidates = [_kept(path, pck), *map(_parsed, files)]
    found = [item for c in candidates if c is not None and (item := _matching(c, pck)) is not None]
    if not found:
        raise unavailable(
            str(path),
            f"has no collateral for FMSPC {pck.fmspc.hex()} and the {pck.ca} CA"
            f" among {len(files)} JSON files",
        )
    return max(found, key=lambda item: item[0])[1]


def _kept(folder: Path, pck: PckCertificate) -> Collateral | None:
    """What a PCCS client has kept for the platform."""
    kept = CollateralFolder(folder).load(f"{pck.fmspc.hex()}-{pck.ca}")
    return None if kept is None else kept.collateral


def _parsed(file: Path) -> Collateral | None:
    try:
        return Collateral.from_json(_read(file))
    except AppraiserError:
        return None  # another kind of JSON file


def _matching(collateral: Collateral, pck: PckCertificate) -> tuple[float, Collateral] | None:
    """When the TCB info was issued, and the collateral; None if it is for another platform."""
    try:
        statements = parse_statements(collateral)
    except AppraiserError:
        return None  # broken, so for no platform
    return (statements.tcb_info.issued, collateral) if _is_for(statements, pck) else None


def _is_for(statements: VendorStatements, pck: PckCertificate) -> bool:
    fmspc = statements.tcb_info.members.get("fmspc")
    is_platform = isinstance(fmspc, str) and fmspc.lower() == pck.fmspc.hex()
    return is_platform and statements.pck_crl.issuer == pck.leaf.issuer


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_COLLATERAL_OCTETS + 1)
    except OSError as exc:
        raise unavailable(str(file), f"cannot be read: {exc.strerror}") from exc
