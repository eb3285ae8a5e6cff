"""What the simulated vendor says about its platforms, freshly signed.

Members and dialect of Intel's TCB info version 3 and TD_QE identity version 2 (Intel "PCS API
v4").  The first TCB level is exactly the current machine; below it lies one that is out of
date, which an older machine falls into.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from tng.attest.tdx.collateral import Collateral
from tng.attest.tdx.simulator.authority import DAY_S, Authority, dump_pem, make_crl
from tng.attest.tdx.simulator.profile import HostProfile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography import x509

VALID_S: Final = 30 * DAY_S
"""As long as Intel's own."""

BACKDATED_S: Final = 3600
"""Issued this long before it is asked for: clocks of two machines differ."""

_TCB_DATE: Final = "2024-03-13T00:00:00Z"
_CURRENT: Final = HostProfile()
_OLD_PCE_SVN: Final = 5
_EVALUATION: Final = 17


def make_collateral(
    authority: Authority, now: int, *, revoked: Iterable[x509.Certificate] = ()
) -> Collateral:
    """All nine members, issued an hour before `now` and valid for 30 days.

    Args:
        authority: signs them.
        now: Unix time, seconds.
        revoked: PCK certificates on the PCK CA's revocation list.
    """
    issued = now - BACKDATED_S
    root = authority.root
    tcb_info, tcb_signature = authority.sign_json(tcb_info_statement(issued))
    identity, identity_signature = authority.sign_json(qe_identity_statement(issued))
    signer_chain = dump_pem(authority.tcb_signer.certificate, root.certificate)
    return Collateral(
        pck_crl_issuer_chain=dump_pem(authority.pck_ca.certificate, root.certificate),
        root_ca_crl=make_crl(root, issued, VALID_S),
        pck_crl=make_crl(authority.pck_ca, issued, VALID_S, revoked),
        tcb_info_issuer_chain=signer_chain,
        tcb_info=tcb_info,
        tcb_info_signature=tcb_signature,
        qe_identity_issuer_chain=signer_chain,
        qe_identity=identity,
        qe_identity_signature=identity_signature,
    )


def tcb_info_statement(issued: int, *, status: str = "UpToDate") -> dict[str, object]:
    """TCB info for TDX: which versions of everything the vendor calls current.

    Args:
        issued: Unix time, seconds.
        status: what to say of the current machine.
    """
    module = {
        "mrsigner": _CURRENT.mr_signer_seam.hex().upper(),
        "attributes": _CURRENT.seam_attributes.hex().upper(),
        "attributesMask": "F" * 16,
    }
    module_levels = [{"tcb": {"isvsvn": _CURRENT.tee_tcb_svn[0]}, **_dated("UpToDate")}]
    return {
        "id": "TDX",
        "version": 3,
        **_issue_dates(issued),
        "fmspc": _CURRENT.fmspc.hex().upper(),
        "pceId": _CURRENT.pce_id.hex().upper(),
        "tcbType": 0,
        "tcbEvaluationDataNumber": _EVALUATION,
        "tdxModule": module,
        "tdxModuleIdentities": [
            {"id": f"TDX_{_CURRENT.tee_tcb_svn[1]:02X}", **module, "tcbLevels": module_levels}
        ],
        "tcbLevels": [
            _level(_CURRENT.pce_svn) | _dated(status),
            _level(_OLD_PCE_SVN) | _dated("OutOfDate") | {"advisoryIDs": ["SIMULATED-SA-00001"]},
        ],
    }


def qe_identity_statement(issued: int) -> dict[str, object]:
    """Which quoting enclaves the vendor vouches for; `issued` is Unix time, seconds."""
    return {
        "id": "TD_QE",
        "version": 2,
        **_issue_dates(issued),
        "tcbEvaluationDataNumber": _EVALUATION,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11" + "00" * 15,
        "attributesMask": "FBFFFFFFFFFFFFFF" + "00" * 8,
        "mrsigner": _CURRENT.qe_mr_signer.hex().upper(),
        "isvprodid": _CURRENT.qe_isv_prod_id,
        "tcbLevels": [{"tcb": {"isvsvn": 4}, **_dated("UpToDate")}],
    }


def _level(pce_svn: int) -> dict[str, object]:
    # Component 1 is the module's major version, which selects the module identity instead.
    module, _, *others = _CURRENT.tee_tcb_svn
    return {
        "tcb": {
            "sgxtcbcomponents": [{"svn": svn} for svn in _CURRENT.cpu_svn],
            "pcesvn": pce_svn,
            "tdxtcbcomponents": [{"svn": svn} for svn in (module, 0, *others)],
        }
    }


def _dated(status: str) -> dict[str, object]:
    return {"tcbDate": _TCB_DATE, "tcbStatus": status}


def _issue_dates(issued: int) -> dict[str, object]:
    return {"issueDate": _rfc3339(issued), "nextUpdate": _rfc3339(issued + VALID_S)}


def _rfc3339(at: int) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
