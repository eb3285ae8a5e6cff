"""The kernel's own interface to the TEE as a source of evidence (`aa_type: tsm`), without an agent.

Linux 6.7 and later show TEE reports as a directory in configfs (Documentation/ABI/testing/
configfs-tsm): make an entry, write the report data to `inblob`, read the quote from `outblob`.
`generation` counts the writes to an entry, so that a write by somebody else is noticed.

TDX guests only.  The evidence is the JSON that attestation services expect from an Attestation
Agent on such a guest: the quote and the boot event log.

Invariant: the quote returned carries the report data asked for, and no entry stays behind.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import trio

from tng.attest.attester.base import DEADLINE, TeeEvidence, make_evidence
from tng.attest.attester.boot_log import read_boot_log
from tng.errors import EvidenceError

REPORT_ROOT: Final = Path("/sys/kernel/config/tsm/report")
"""Where configfs shows the interface."""
CCEL_PATH: Final = Path("/sys/firmware/acpi/tables/data/CCEL")
"""The firmware's event log."""
AAEL_PATH: Final = Path("/run/attestation-agent/eventlog")
"""The agent's event log, where an agent ran."""
PROVIDER: Final = "tdx_guest"
"""The one provider whose quotes are understood here."""

MAX_ATTEMPTS: Final = 5
"""Tries before giving up on an entry that somebody else keeps writing to."""
MAX_QUOTE: Final = 1 << 20
"""Octets of a quote; real ones have about 8,000 and the kernel stops at 32 KiB today."""
_REPORT_DATA_SIZE: Final = 64  # octets, fixed by the TDX module
_CONFLICTS: Final = frozenset({errno.EBUSY, errno.EAGAIN})  # the kernel noticed the race itself


class ReportEntry(Protocol):
    """One entry below the report directory, from mkdir to rmdir."""

    def read(self, attribute: str) -> bytes:
        """Content of an attribute.

        Raises:
            OSError: as the kernel says.
        """
        ...

    def write(self, attribute: str, data: bytes) -> None:
        """Set an attribute.

        Raises:
            OSError: as the kernel says.
        """
        ...

    def remove(self) -> None:
        """Remove the entry; never fails."""
        ...


class ConfigfsEntry:
    """An entry in the real configfs, made on construction.

    Args:
        root: the report directory.

    Raises:
        OSError: there is no such directory, or it may not be written to.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / f"tng-{secrets.token_hex(8)}"
        self._path.mkdir()

    def read(self, attribute: str) -> bytes:
        """Content of an attribute, at most `MAX_QUOTE` octets and one."""
        with (self._path / attribute).open("rb") as file:
            return file.read(MAX_QUOTE + 1)

    def write(self, attribute: str, data: bytes) -> None:
        """Set an attribute in one write; the kernel takes it on close."""
        # Not open(): it would create a file where the attribute does not exist.
        descriptor = os.open(self._path / attribute, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        """Remove the entry; configfs removes its attributes with it."""
        with contextlib.suppress(OSError):  # gone already; either way the evidence stands
            self._path.rmdir()


class TsmAttester:
    """Asks the kernel of a TDX guest.

    Args:
        root: the report directory in configfs.
        ccel_path: the firmware's event log.
        aael_path: the agent's event log.
        deadline: seconds that a quote may take.
        make_entry: makes an entry below the root; tests give their own.
    """

    def __init__(
        self,
        root: Path = REPORT_ROOT,
        ccel_path: Path = CCEL_PATH,
        aael_path: Path = AAEL_PATH,
        *,
        deadline: float = DEADLINE,
        make_entry: Callable[[Path], ReportEntry] = ConfigfsEntry,
    ) -> None:
        self._root = root
        self._ccel_path = ccel_path
        self._aael_path = aael_path
        self._deadline = deadline
        self._make_entry = make_entry
        self._source = f"TSM report interface at {root}"

    async def get_evidence(self, report_data: bytes) -> TeeEvidence:
        """Ask the kernel to vouch for `report_data` (see `Attester`)."""
        padded = report_data.ljust(_REPORT_DATA_SIZE, b"\0")
        try:
            with trio.fail_after(self._deadline):
                # The kernel waits for the host; a thread that waits too long is left behind, and
                # removes its entry when the kernel lets it go.
                return await trio.to_thread.run_sync(self._collect, padded, abandon_on_cancel=True)
        except trio.TooSlowError as exc:
            raise EvidenceError(
                f"{self._source} gave no quote within {self._deadline:g} s; "
                "check the quote generation service on the host"
            ) from exc

    def _collect(self, padded: bytes) -> TeeEvidence:
        try:
            entry = self._make_entry(self._root)
        except OSError as exc:
            raise EvidenceError(
                f"cannot make an entry in the {self._source}: {exc.strerror}; needs Linux 6.7 or "
                "later in a TDX guest, configfs mounted, and the right to write there"
            ) from exc
        try:
            quote = self._quote(entry, padded)
        except OSError as exc:
            raise EvidenceError(
                f"{self._source} refused: {exc.strerror}; see the kernel log of the guest and the "
                "quote generation service on the host"
            ) from exc
        finally:
            entry.remove()
        boot_log = read_boot_log(self._ccel_path, self._aael_path)
        return make_evidence(self._source, "tdx", dump_tdx_evidence(quote, boot_log), b"")

    def _quote(self, entry: ReportEntry, padded: bytes) -> bytes:
        provider = entry.read("provider").decode("ascii", "replace").strip()
        if provider != PROVIDER:
            raise EvidenceError(
                f"{self._source} has provider {provider[:64]!r}, expected {PROVIDER!r}; "
                "other TEEs need an Attestation Agent (aa_type uds)"
            )
        for _ in range(MAX_ATTEMPTS):
            quote = self._attempt(entry, padded)
            if quote is not None:
                return quote
        raise EvidenceError(
            f"{self._source}: another process wrote to our entry in each of {MAX_ATTEMPTS} attempts"
        )

    def _attempt(self, entry: ReportEntry, padded: bytes) -> bytes | None:
        """One quote; None when somebody else wrote to the entry meanwhile."""
        try:
            before = self._generation(entry)
            entry.write("inblob", padded)
            quote = entry.read("outblob")
            after = self._generation(entry)
        except OSError as exc:
            if exc.errno in _CONFLICTS:
                return None
            raise
        if after != before + 1:
            return None
        if len(quote) > MAX_QUOTE:
            raise EvidenceError(f"{self._source} returned more than {MAX_QUOTE} octets")
        if padded not in quote:
            raise EvidenceError(
                f"{self._source} returned a quote without the report data asked for"
            )
        return quote

    def _generation(self, entry: ReportEntry) -> int:
        text = entry.read("generation").strip()
        if not text.isdigit() or len(text) > 20:  # 64 bits have 20 digits
            raise EvidenceError(f"{self._source} has generation {text[:32]!r}, expected a number")
        return int(text)


def dump_tdx_evidence(quote: bytes, boot_log: bytes | None) -> bytes:
    """The evidence of a TDX guest as an Attestation Agent writes it: JSON, sorted and compact.

    Args:
        quote: the TDX quote.
        boot_log: the joined event log; None without one.
    """
    log_text = None if boot_log is None else base64.b64encode(boot_log).decode("ascii")
    fields = {"cc_eventlog": log_text, "quote": base64.b64encode(quote).decode("ascii")}
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii")
