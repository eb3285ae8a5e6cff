"""A TDX machine, its guest and its vendor, all in software.

`SimulatedPlatform.load_or_create(directory, now)` gives evidence (`evidence`), what is needed
to judge it (`collateral`), and the root to trust (`root_der`).  The evidence has the form of a
CoCo attestation agent's, with genuine quotes of version 4.

    platform = SimulatedPlatform.load_or_create(directory, now)
    evidence = platform.evidence(report_data)
    judge_tdx(evidence, expected_report_data=report_data, collateral=platform.collateral(now),
              now=now, root_ca_der=platform.root_der)

SIMULATED: no hardware stands behind any of it, every certificate says so, and no verifier
accepts it that was not given this platform's root.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Final

from tng.attest.tdx.quote import MEASUREMENT_OCTETS, REPORT_DATA_OCTETS
from tng.attest.tdx.simulator.authority import DAY_S, Authority
from tng.attest.tdx.simulator.collateral import VALID_S, make_collateral
from tng.attest.tdx.simulator.eventlog import SimulatedEventLog, make_boot_log
from tng.attest.tdx.simulator.host import SimulatedHost
from tng.attest.tdx.simulator.profile import TD_DEBUG, HostProfile, TrustDomain
from tng.attest.tdx.simulator.spoil import Spoil
from tng.attest.tdx.simulator.store import (
    DESCRIPTION_FILE,
    StoredPlatform,
    locked,
    read_platform,
    write_platform,
)
from tng.errors import LocalProtocolError

if TYPE_CHECKING:
    from pathlib import Path

    from tng.attest.tdx.collateral import Collateral

_OLD_PCE_SVN: Final = 9  # between the current level, 11, and the out-of-date one, 5
_STALE_S: Final = VALID_S + 10 * DAY_S
_MR_TD_AT: Final = 184  # in a quote of version 4


class SimulatedPlatform:
    """One machine with one guest.  Made by `build`, `create`, `load` or `load_or_create`.

    Args:
        stored: keys, certificates, and the one thing that is wrong.
        init_data_digest: what the guest's MRCONFIGID says, at most 48 octets.

    Raises:
        LocalProtocolError: a longer digest.
    """

    def __init__(self, stored: StoredPlatform, *, init_data_digest: bytes = b"") -> None:
        if len(init_data_digest) > MEASUREMENT_OCTETS:
            raise LocalProtocolError("an init data digest has at most 48 octets")
        self.event_log: SimulatedEventLog = make_boot_log()
        self._stored = stored
        self._quoting_host = _choose_host(stored)
        self._domain = TrustDomain(
            self.event_log.registers,
            mr_config_id=init_data_digest.ljust(MEASUREMENT_OCTETS, b"\0"),
        )
        if stored.spoil is Spoil.DEBUG:
            attributes = self._domain.td_attributes | TD_DEBUG
            self._domain = dataclasses.replace(self._domain, td_attributes=attributes)

    @classmethod
    def build(
        cls, *, now: int, spoil: Spoil | None = None, init_data_digest: bytes = b""
    ) -> SimulatedPlatform:
        """A platform that lives in memory alone.

        Args:
            now: Unix time, seconds, about which its certificates are valid.
            spoil: what is to be wrong with it.
            init_data_digest: see the class.
        """
        authority = Authority.create(now)
        host = SimulatedHost.create(authority, HostProfile(), now)
        return cls(StoredPlatform(authority, host, now, spoil), init_data_digest=init_data_digest)

    @classmethod
    def create(cls, directory: Path, *, now: int, spoil: Spoil | None = None) -> SimulatedPlatform:
        """A new platform, written to `directory`, which must not exist or be empty.

        Args:
            directory: where it will live; see `simulator.store` for its files.
            now: Unix time, seconds, about which its certificates are valid.
            spoil: what is to be wrong with it, now and whenever it is loaded.

        Raises:
            EvidenceError: the directory is in use or cannot be written.
        """
        platform = cls.build(now=now, spoil=spoil)
        extra = {
            "collateral.json": platform.collateral(now).to_json().encode(),
            "eventlog.bin": platform.event_log.to_bytes(),
            "reference_values.json": json.dumps(platform.reference_values(), indent=1).encode(),
        }
        write_platform(directory, platform._stored, extra)  # noqa: SLF001 - our own
        return platform

    @classmethod
    def load(cls, directory: Path) -> SimulatedPlatform:
        """The platform that `create` wrote to `directory`.

        Raises:
            EvidenceError: there is none, or its files do not belong together.
        """
        return cls(read_platform(directory))

    @classmethod
    def load_or_create(
        cls, directory: Path, now: int, *, spoil: Spoil | None = None
    ) -> SimulatedPlatform:
        """The platform in `directory`; a new one where there is none.

        Two processes that start at once get the same platform.

        Args:
            directory: where it lives.
            now: Unix time, seconds, for a new one.
            spoil: for a new one; one that exists stays as it is.

        Raises:
            EvidenceError: it can be neither read nor written.
        """
        with locked(directory):
            if (directory / DESCRIPTION_FILE).exists():
                return cls.load(directory)
            return cls.create(directory, now=now, spoil=spoil)

    @property
    def spoil(self) -> Spoil | None:
        """The one thing that is wrong with this platform; None for nothing."""
        return self._stored.spoil

    @property
    def root_der(self) -> bytes:
        """The development root, DER."""
        return self._stored.authority.root_der

    @property
    def mr_td(self) -> bytes:
        """48 octets: the measurement of the guest's firmware."""
        return self._domain.mr_td

    def spoiled(self, spoil: Spoil | None) -> SimulatedPlatform:
        """The same platform, in memory, with another thing wrong with it, or nothing."""
        stored = dataclasses.replace(self._stored, spoil=spoil)
        return SimulatedPlatform(stored, init_data_digest=self._domain.mr_config_id)

    def collateral(self, now: int) -> Collateral:
        """What the vendor says at `now` (Unix time, seconds): fresh, good for 30 days."""
        at = now - _STALE_S if self.spoil is Spoil.EXPIRED_COLLATERAL else now
        revoked = [self._stored.host.pck.certificate] if self.spoil is Spoil.REVOKED else []
        return make_collateral(self._stored.authority, at, revoked=revoked)

    def quote(self, report_data: bytes, *, version: int = 4) -> bytes:
        """A quote over 64 octets of report data, spoiled where the platform is.

        Args:
            report_data: what the guest asked to have signed.
            version: 4, or 5 with a TD report 1.5.

        Raises:
            LocalProtocolError: report data of another length, or another version.
        """
        if self.spoil is Spoil.REPORT_DATA and report_data:
            report_data = _flip(report_data, 0)
        elif self.spoil is Spoil.KEY:
            other = hashlib.sha384(b"another TLS key").digest()
            report_data = other.ljust(REPORT_DATA_OCTETS, b"\0")
        quote = self._quoting_host.quote(report_data, self._domain, version=version)
        if self.spoil is Spoil.TRUNCATED:
            return quote[: len(quote) // 2]
        return _flip(quote, _MR_TD_AT) if self.spoil is Spoil.FLIPPED else quote

    def evidence(self, report_data: bytes) -> bytes:
        """Evidence as an attestation agent returns it: JSON, keys sorted, no spaces.

        Args:
            report_data: at most 64 octets; zeros are appended.

        Raises:
            LocalProtocolError: more than 64 octets.
        """
        quote = self.quote(report_data.ljust(REPORT_DATA_OCTETS, b"\0"))
        members = {
            "cc_eventlog": base64.b64encode(self.event_log.to_bytes()).decode(),
            "gpu_evidence": None,
            "quote": base64.b64encode(quote).decode(),
        }
        return json.dumps(members, separators=(",", ":")).encode()

    def reference_values(self) -> dict[str, list[str]]:
        """Values under which a policy about measurements accepts this guest."""
        digests = self.event_log.digests.items()
        values = {f"measurement.{name}.SHA-384": [digest] for name, digest in digests}
        xfam = self._domain.xfam.to_bytes(8, "little").hex()
        return values | {"tdx.xfam": [xfam], "mr_td": [self.mr_td.hex()]}


def _choose_host(stored: StoredPlatform) -> SimulatedHost:
    """The machine that signs quotes: another than the platform's own for two of the faults."""
    if stored.spoil is Spoil.OUT_OF_DATE:
        old = HostProfile(pce_svn=_OLD_PCE_SVN)
        return SimulatedHost.create(stored.authority, old, stored.created)
    if stored.spoil is Spoil.WRONG_ROOT:
        stranger = Authority.create(stored.created)
        return SimulatedHost.create(stranger, HostProfile(), stored.created)
    return stored.host


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
