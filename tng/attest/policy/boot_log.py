"""Boot measurements in claims: those in an event log, and those under names of their own.

The claims of one TEE and reference values go in, an objection or "" comes out.  Names and places
are those of the default policy of the Trustee attestation service 1.9 for CPUs: a TDX or CSV guest
brings its event log (`uefi_event_logs`), a TPM brings digests under `measurement.<name>.<ALG>`.

Invariant: "" means that each of `COMPONENTS` was found, with one digest, and that this digest is
among the reference values `measurement.<name>.<ALG>`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tng.attest.policy.base import References
from tng.attest.policy.rego_values import UNDEFINED, elements, is_in, look_up, text_of
from tng.attest.strict_json import parse_object

COMPONENTS: Final = ("grub", "shim", "initrd", "kernel")
"""What boots a guest, in the order in which it is asked for."""

ALGORITHMS: Final = ("SHA-1", "SHA-256", "SHA-384", "SM-3")
"""Digests that a TPM's claims are looked through for."""

_APPLICATION: Final = "EV_EFI_BOOT_SERVICES_APPLICATION"
_BOOT_LOADER: Final = "EV_IPL"
_COMMAND_LINES: Final = ("grub_cmd linux", "kernel_cmdline", "grub_kernel_cmdline")
_WORDS: Final = {"initrd": "Initrd", "kernel": "Kernel"}


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest as an event log writes it.

    Attributes:
        algorithm: usually a text such as "SHA-384".
        value: usually lower-case hex.
    """

    algorithm: object
    value: object


def object_to_boot_log(tee: object, references: References) -> str:
    """Objection to the boot components in a TEE's event log."""
    log = look_up(tee, "uefi_event_logs")
    digests = {}
    for name in COMPONENTS:
        found = list(_component(log, name))
        if not found:
            return f"the event log names no {name}"
        if any(digest != found[0] for digest in found):
            return f"the event log names different digests of {name}"
        digests[name] = found[0]
    for name, digest in digests.items():
        if objection := _unknown(name, digest, references):
            return objection
    return ""


def object_to_command_line(tee: object, references: References) -> str:
    """Objection to the kernel's command line in a TEE's event log; one that is known is enough."""
    objections = []
    for event in _events(look_up(tee, "uefi_event_logs"), _BOOT_LOADER):
        text = text_of(look_up(event, "details", "string"), "details.string")
        digest = _first_digest(event)
        if text is None or not text.startswith(_COMMAND_LINES) or digest is None:
            continue
        objection = _unknown("kernel_cmdline", digest, references)
        if not objection:
            return ""
        objections.append(objection)
    return objections[0] if objections else "the event log names no kernel_cmdline"


def object_to_boot_digests(tee: object, references: References) -> str:
    """Objection to the boot components among a TPM's claims: all of one algorithm."""
    missing = []
    for algorithm in ALGORITHMS:
        names = [f"measurement.{name}.{algorithm}" for name in COMPONENTS]
        unknown = [name for name in names if not _is_known(tee, name, references)]
        if not unknown:
            return ""
        missing.append(unknown[0])
    return f"not known from reference values: {', '.join(missing)}"


def object_to_command_line_digest(tee: object, references: References) -> str:
    """Objection to the kernel's command line among a TPM's claims."""
    if look_up(tee, "kernel_cmdline") is UNDEFINED:
        return "there is no kernel_cmdline"
    names = [f"measurement.kernel_cmdline.{algorithm}" for algorithm in ALGORITHMS]
    if any(_is_known(tee, name, references) for name in names):
        return ""
    return f"not known from reference values: {', '.join(names)}"


def object_to_models(tee: object, references: References) -> str:
    """Objection to the models that a machine loaded; a log without any is fine."""
    log = look_up(tee, "uefi_event_logs")
    if log is UNDEFINED:
        return "there is no event log"
    for event in _events(log, "EV_EVENT_TAG"):
        operation = _loaded_model(event)
        if operation is None:
            continue
        content = text_of(look_up(event, "details", "data", "content"), "data.content")
        try:
            model = parse_object((content or "").encode())
        except ValueError:
            return "a model's measurement is not JSON"
        name = f"measurement.model.{model.get('model-id')}"
        if not isinstance(model.get("model-id"), str) or not is_in(
            model.get("hash", UNDEFINED), references.get(name)
        ):
            return f"hash is not in {name[:120]!r}"
    return ""


def _loaded_model(event: object) -> str | None:
    """The operation, if it is that of loading a model."""
    data = look_up(event, "details", "data")
    if look_up(event, "details", "unicode_name") != "AAEL":
        return None
    if look_up(data, "domain") != "trustiflux.alibaba.com":
        return None
    operation = text_of(look_up(data, "operation"), "data.operation")
    return operation if operation is not None and "load-model" in operation else None


def _component(log: object, name: str) -> Iterator[Digest]:
    """Digests of a boot component, one for each event that names it."""
    kind = _BOOT_LOADER if name in _WORDS else _APPLICATION
    for event in _events(log, kind):
        if _names(event, name):
            digest = _first_digest(event)
            if digest is not None:
                yield digest


def _names(event: object, name: str) -> bool:
    if name in _WORDS:
        texts = [look_up(event, "details", "string")]
    else:
        texts = elements(look_up(event, "details", "device_paths"))
    read = [text_of(text, "details") for text in texts]
    return any(_WORDS.get(name, name) in text for text in read if text is not None)


def _events(log: object, kind: str) -> Iterator[object]:
    return (event for event in elements(log) if look_up(event, "type_name") == kind)


def _first_digest(event: object) -> Digest | None:
    algorithm = look_up(event, "digests", 0, "alg")
    value = look_up(event, "digests", 0, "digest")
    if algorithm is UNDEFINED or value is UNDEFINED:
        return None
    return Digest(algorithm, value)


def _unknown(name: str, digest: Digest, references: References) -> str:
    key = f"measurement.{name}.{digest.algorithm}"
    if isinstance(digest.algorithm, str) and is_in(digest.value, references.get(key)):
        return ""
    known = len(elements(references.get(key)))
    return f"{str(digest.value)[:128]!r} is none of {known} values of {key[:120]!r}"


def _is_known(tee: object, name: str, references: References) -> bool:
    return is_in(look_up(tee, name), references.get(name))
