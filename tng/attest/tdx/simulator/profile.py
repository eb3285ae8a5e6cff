"""What one simulated machine is made of: firmware versions, identities, measurements.

Pure values.  The defaults have the shape of a Sapphire Rapids host; every identity is a hash
of a text that begins with "simulated", so that none can equal a real one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

TD_DEBUG = 1
TD_SEPT_VE_DISABLE = 1 << 28
"""Set on every well-made trust domain; verifiers refuse those without."""


@dataclass(frozen=True, slots=True)
class HostProfile:
    """The platform: what a PCK certificate and the TDX module say of it.

    Attributes:
        fmspc: 6 octets, the kind of platform.
        cpu_svn: 16 component versions.
        pce_svn: version of the provisioning enclave; TCB info expects 11.
        pce_id: 2 octets.
        ppid: 16 octets, names the machine.
        platform_instance_id: 16 octets.
        sgx_type: 1, scalable.
        tee_tcb_svn: 16 octets: module version 1.6, then component versions.
        mr_seam: 48 octets, the TDX module.
        mr_signer_seam: 48 octets; zeros mean the vendor.
        seam_attributes: 8 octets.
        qe_mr_signer: 32 octets, who signed the quoting enclave.
        qe_mr_enclave: 32 octets, the quoting enclave.
        qe_isv_prod_id: 2, the TD quoting enclave.
        qe_isv_svn: its version.
        qe_attributes: 16 octets.
    """

    fmspc: bytes = bytes.fromhex("50806f000000")
    cpu_svn: bytes = bytes([3, 3, 2, 2, 4, 1, 0, 5]) + bytes(8)
    pce_svn: int = 11
    pce_id: bytes = bytes(2)
    ppid: bytes = b"SIMULATED PPID".ljust(16, b"\0")
    platform_instance_id: bytes = b"SIMULATED HOST".ljust(16, b"\0")
    sgx_type: int = 1
    tee_tcb_svn: bytes = bytes([6, 1, 3]) + bytes(13)
    mr_seam: bytes = hashlib.sha384(b"simulated TDX module").digest()
    mr_signer_seam: bytes = bytes(48)
    seam_attributes: bytes = bytes(8)
    qe_mr_signer: bytes = hashlib.sha256(b"simulated QE signer").digest()
    qe_mr_enclave: bytes = hashlib.sha256(b"simulated QE").digest()
    qe_isv_prod_id: int = 2
    qe_isv_svn: int = 6
    qe_attributes: bytes = bytes.fromhex("1500000000000000e700000000000000")


@dataclass(frozen=True, slots=True)
class TrustDomain:
    """One guest: what was measured into it.

    Attributes:
        rtmrs: the four run-time registers, 48 octets each.
        mr_td: 48 octets, the firmware.
        td_attributes: attribute bits.
        xfam: extended features, as on real hosts.
        mr_config_id: 48 octets, the digest of the init data; zeros for none.
        mr_servicetd: 48 octets; only in a TD report 1.5.
    """

    rtmrs: tuple[bytes, bytes, bytes, bytes]
    mr_td: bytes = hashlib.sha384(b"simulated firmware").digest()
    td_attributes: int = TD_SEPT_VE_DISABLE
    xfam: int = 0x0602E7
    mr_config_id: bytes = bytes(48)
    mr_servicetd: bytes = bytes(48)
