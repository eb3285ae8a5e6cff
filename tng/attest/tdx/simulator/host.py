"""One simulated machine: a PCK key, a quoting enclave, and the quotes it signs.

The quoting enclave's report over its attestation key is made once, as in a real one; a quote
then costs one ECDSA signature.  Layouts as in `tdx.quote`, which is the inverse.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from typing import TYPE_CHECKING, Final

from tng.attest.tdx.quote import INTEL_QE_VENDOR, REPORT_DATA_OCTETS, TDX_TEE_TYPE
from tng.attest.tdx.simulator.authority import Authority, Identity, dump_pem
from tng.attest.tdx.simulator.keys import PrivateKey, make_key, public_point, sign_raw
from tng.errors import LocalProtocolError

if TYPE_CHECKING:
    from tng.attest.tdx.simulator.profile import HostProfile, TrustDomain

_ECDSA_P256: Final = 2
_TD_REPORT_15: Final = 3
_BY_QE_REPORT: Final = 6
_BY_PCK_CHAIN: Final = 5


class SimulatedHost:
    """A machine whose PCK certificate `authority` has issued.

    Args:
        authority: gives the chain above the PCK certificate.
        pck: the PCK key and its certificate.
        profile: must be the one that the certificate was issued for.
        attestation_key: the quoting enclave's own key; a fresh one when None.
    """

    def __init__(
        self,
        authority: Authority,
        pck: Identity,
        profile: HostProfile,
        attestation_key: PrivateKey | None = None,
    ) -> None:
        self.pck = pck
        self.profile = profile
        self.attestation_key = attestation_key or make_key()
        self._enclave_id = secrets.token_bytes(16)
        chain = dump_pem(pck.certificate, authority.pck_ca.certificate, authority.root.certificate)
        self._certification = self._certify(chain.encode())

    @classmethod
    def create(cls, authority: Authority, profile: HostProfile, now: int) -> SimulatedHost:
        """A machine with a fresh PCK key, certified at `now` (Unix time, seconds)."""
        key = make_key()
        certificate = authority.issue_pck(profile, key.public_key(), now)
        return cls(authority, Identity(key, certificate), profile)

    def quote(self, report_data: bytes, domain: TrustDomain, *, version: int = 4) -> bytes:
        """A quote over `report_data`, exactly 64 octets.

        Args:
            report_data: what the guest asked to have signed.
            domain: the guest.
            version: 4, or 5 with a TD report 1.5.

        Raises:
            LocalProtocolError: report data of another length, or another version.
        """
        if len(report_data) != REPORT_DATA_OCTETS:
            raise LocalProtocolError(f"report data must have 64 octets, got {len(report_data)}")
        if version not in {4, 5}:
            raise LocalProtocolError(f"a quote has version 4 or 5, got {version}")
        body = self._td_report(report_data, domain)
        if version == 5:
            body += self.profile.tee_tcb_svn + domain.mr_servicetd
            body = struct.pack("<HI", _TD_REPORT_15, len(body)) + body
        header = struct.pack("<HHI4x", version, _ECDSA_P256, TDX_TEE_TYPE)
        signed = header + INTEL_QE_VENDOR + self._enclave_id + bytes(4) + body
        signature_data = sign_raw(self.attestation_key, signed) + self._certification
        return signed + struct.pack("<I", len(signature_data)) + signature_data

    def _td_report(self, report_data: bytes, domain: TrustDomain) -> bytes:
        profile = self.profile
        return b"".join(
            (
                profile.tee_tcb_svn,
                profile.mr_seam,
                profile.mr_signer_seam,
                profile.seam_attributes,
                domain.td_attributes.to_bytes(8, "little"),
                domain.xfam.to_bytes(8, "little"),
                domain.mr_td,
                domain.mr_config_id,
                bytes(48 + 48),  # owner, owner's configuration
                *domain.rtmrs,
                report_data,
            )
        )

    def _certify(self, chain_pem: bytes) -> bytes:
        """The attestation key and why it is to be believed: everything after the signature."""
        profile, authentication = self.profile, secrets.token_bytes(32)
        point = public_point(self.attestation_key)
        report = b"".join(
            (
                profile.cpu_svn,
                bytes(4 + 28),  # miscellaneous select, reserved
                profile.qe_attributes,
                profile.qe_mr_enclave,
                bytes(32),
                profile.qe_mr_signer,
                bytes(96),
                struct.pack("<HH60x", profile.qe_isv_prod_id, profile.qe_isv_svn),
                hashlib.sha256(point + authentication).digest(),
                bytes(32),
            )
        )
        inner = report + sign_raw(self.pck.key, report)
        inner += struct.pack("<H", len(authentication)) + authentication
        inner += struct.pack("<HI", _BY_PCK_CHAIN, len(chain_pem)) + chain_pem
        return point + struct.pack("<HI", _BY_QE_REPORT, len(inner)) + inner
