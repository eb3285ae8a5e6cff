"""Measurements by the name of what was measured: boot loaders, kernel, initrd, command line.

Entries of an event log go in, `NamedMeasurement`s come out; and from a quote and its log the
reference values under which policies accept just this guest.  Which entry has which name:
grub's and shim's measurements as the default policy of Trustee 1.9 finds them, a kernel that the
firmware starts directly as the policy of upstream Trustee does.

Only the digests are vouched for by the registers; that a digest belongs to a name is what the
log's writer says.  Therefore every entry with a name is listed, not only the first one: a reader
who wants to be sure demands that all of them are known.

    for measurement in named_measurements(entries):
        print(measurement.name, measurement.register, measurement.digest.hex())
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tng.attest.tdx.eventlog_details import describe
from tng.attest.tdx.eventlog_types import EventType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tng.attest.strict_json import Json
    from tng.attest.tdx.eventlog import EventLogEntry

_COMMAND_LINES: Final = ("grub_cmd linux", "kernel_cmdline", "grub_kernel_cmdline")
_TAGS: Final = {"LOADED_IMAGE::LoadOptions": "kernel_cmdline", "Linux initrd": "initrd"}
_DIRECT: Final = {"kernel": "tdvfkernel", "kernel_cmdline": "tdvfkernelparams"}
_AGENT: Final = "AA.eventlog."
_REGISTERS: Final = ("mr_td", "rtmr_0", "rtmr_1", "rtmr_2", "rtmr_3")
_BODY: Final = ("mr_seam", "tcb_svn", "mr_td", "xfam")


@dataclass(frozen=True, slots=True)
class NamedMeasurement:
    """A digest, and what it is said to be of.

    Attributes:
        name: "shim", "grub", "kernel", "initrd", "kernel_cmdline", or
            "AA.eventlog.<domain>.<operation>" for an attestation agent's own event.
        algorithm: of the digest, e.g. "SHA-384".
        digest: as extended into the register.
        register: "mr_td" or "rtmr_0" to "rtmr_3".
        is_direct: measured by the firmware, which started the kernel without a boot loader.
        content: what an agent's event says; None for all others.
    """

    name: str
    algorithm: str
    digest: bytes
    register: str
    is_direct: bool = False
    content: Json = None

    @property
    def is_of_agent(self) -> bool:
        """Whether an attestation agent measured it at run time."""
        return self.name.startswith(_AGENT)

    def claims(self) -> dict[str, Json]:
        """The measurement as an object of text members."""
        return {
            "name": self.name,
            "alg": self.algorithm,
            "digest": self.digest.hex(),
            "register": self.register,
        }


def named_measurements(entries: Iterable[EventLogEntry]) -> tuple[NamedMeasurement, ...]:
    """Every entry that has a name, in the order of the log; one per digest.

    Raises:
        UntrustedPeerError: an entry's data has not the form of its type (evidence_malformed).
    """
    return tuple(
        NamedMeasurement(name, algorithm.label, digest, _REGISTERS[entry.index], is_direct, content)
        for entry in entries
        if entry.index < len(_REGISTERS)
        for name, is_direct, content in _names(entry)
        for algorithm, digest in entry.digests
    )


def reference_values(
    fields: Mapping[str, str], measurements: Iterable[NamedMeasurement]
) -> dict[str, list[Json]]:
    """Values under which a policy about measurements accepts this guest, by name.

    In the names of both kinds of Trustee: `tdx.xfam` and `measurement.kernel.SHA-384`, `xfam`,
    `rtmr_1` and `tdvfkernel`.  An agent's events count by what they say.

    Args:
        fields: of the TD report, as `TdReport.claims` or a token shows them.
        measurements: from its event log.
    """
    values: dict[str, list[Json]] = {}
    for name in _BODY:
        values[f"tdx.{name}"] = [fields[name]]
    for name in ("mr_seam", "xfam", *_REGISTERS):
        values[name] = [fields[name]]
    for measurement in measurements:
        for name, value in _references(measurement):
            known = values.setdefault(name, [])
            if value not in known:
                known.append(value)
    return values


def _references(measurement: NamedMeasurement) -> Iterator[tuple[str, Json]]:
    if measurement.is_of_agent:
        yield measurement.name, measurement.content
        return
    digest = measurement.digest.hex()
    yield f"measurement.{measurement.name}.{measurement.algorithm}", digest
    if measurement.is_direct and measurement.name in _DIRECT:
        yield _DIRECT[measurement.name], digest


def _names(entry: EventLogEntry) -> Iterator[tuple[str, bool, Json]]:
    """Name, whether the firmware measured it, and content; usually none or one."""
    match entry.kind:
        case EventType.EV_EFI_BOOT_SERVICES_APPLICATION:
            yield from _application(describe(entry.kind, entry.event))
        case EventType.EV_IPL:
            for name in _boot_loader(str(describe(entry.kind, entry.event)["string"])):
                yield name, False, None
        case EventType.EV_EVENT_TAG:
            yield from _tag(describe(entry.kind, entry.event))
        case _:
            pass


def _application(details: dict[str, object]) -> Iterator[tuple[str, bool, Json]]:
    paths = details.get("device_paths")
    nodes = [str(node) for node in paths] if isinstance(paths, list) else []
    for name in ("shim", "grub"):
        if any(name in node for node in nodes):
            yield name, False, None
    if "File(kernel)" in nodes:
        yield "kernel", True, None


def _boot_loader(text: str) -> Iterator[str]:
    if text.startswith(_COMMAND_LINES):
        yield "kernel_cmdline"
    elif "Kernel" in text:
        yield "kernel"
    elif "Initrd" in text:
        yield "initrd"


def _tag(details: dict[str, object]) -> Iterator[tuple[str, bool, Json]]:
    data = details.get("data")
    if isinstance(data, dict):
        content: Json = data["content"]
        yield f"{_AGENT}{data['domain']}.{data['operation']}", False, content
        return
    # What follows the name of a tag is its data; the name stands alone in `string`.
    name = _TAGS.get(str(details["string"]))
    if name is not None:
        yield name, True, None
