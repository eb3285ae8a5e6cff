"""What a signed payload says of measurements: release manifests and SLSA provenance.

The octets of an opened envelope go in, digests by name come out.  Sources: the release manifest of
Trustee's reference values (`schemaVersion` 1), the in-toto statement (v0.1 and v1) with a SLSA
provenance predicate.

Invariant: every digest is lower-case hex of its algorithm's length.
"""

from __future__ import annotations

import re
from typing import Final

from tng.attest.strict_json import Json, parse_object

RELEASE_TYPES: Final = ("application/vnd.trustee.rv.release+json",)
"""Payload types of release manifests."""

IN_TOTO_TYPES: Final = ("application/vnd.in-toto+json",)
"""Payload types of in-toto statements."""

MAX_SUBJECTS: Final = 1024
"""Artifacts of one statement, measurements of one manifest."""

_STATEMENTS: Final = ("https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v1")
_PROVENANCE: Final = re.compile(r"https://slsa\.dev/provenance/v[0-9.]{1,8}")
_HEX: Final = {
    "sha256": re.compile(r"[0-9a-f]{64}"),
    "sha384": re.compile(r"[0-9a-f]{96}"),
    "sha512": re.compile(r"[0-9a-f]{128}"),
}


def manifest_digests(payload: bytes) -> dict[str, str]:
    """Digests of a release manifest, by the name of what was measured.

    Raises:
        ValueError: no such manifest.
    """
    manifest = parse_object(payload)
    if manifest.get("schemaVersion") != 1 or manifest.get("schemaVersion") is True:
        raise ValueError(f"schemaVersion is {manifest.get('schemaVersion')!r:.40}, expected 1")
    measurements = manifest.get("measurements")
    if not isinstance(measurements, dict) or not 1 <= len(measurements) <= MAX_SUBJECTS:
        raise ValueError(f"expected 1 to {MAX_SUBJECTS} measurements")
    digests = {}
    for name, item in measurements.items():
        if not isinstance(item, dict):
            raise ValueError(f"measurement {name!r:.90} is no object")  # noqa: TRY004
        digests[name] = _digest(item.get("algorithm"), item.get("value"))
    return digests


def provenance_digests(payload: bytes, name: str) -> list[str]:
    """Digests of one artifact in a SLSA provenance.

    Args:
        payload: an in-toto statement.
        name: of the artifact.

    Raises:
        ValueError: no such statement, of something else, or not about the artifact.
    """
    statement = parse_object(payload)
    if statement.get("_type") not in _STATEMENTS:
        raise ValueError(f"_type is {statement.get('_type')!r:.80}, expected {_STATEMENTS[1]}")
    predicate = statement.get("predicateType")
    if not isinstance(predicate, str) or not _PROVENANCE.fullmatch(predicate):
        raise ValueError(
            f"predicateType is {predicate!r:.80}, expected https://slsa.dev/provenance"
        )
    subjects = statement.get("subject")
    if not isinstance(subjects, list) or not 1 <= len(subjects) <= MAX_SUBJECTS:
        raise ValueError(f"expected 1 to {MAX_SUBJECTS} subjects")
    digests = [digest for subject in subjects for digest in _of_subject(subject, name)]
    if not digests:
        raise ValueError(f"no subject is named {name!r:.90}")
    return digests


def _of_subject(subject: Json, name: str) -> list[str]:
    if not isinstance(subject, dict) or subject.get("name") != name:
        return []
    digests = subject.get("digest")
    if not isinstance(digests, dict) or not digests:
        raise ValueError(f"subject {name!r:.90} has no digest")
    return [_digest(algorithm, value) for algorithm, value in digests.items()]


def _digest(algorithm: Json, value: Json) -> str:
    pattern = _HEX.get(algorithm) if isinstance(algorithm, str) else None
    if pattern is None:
        raise ValueError(f"algorithm is {algorithm!r:.40}, expected one of {', '.join(_HEX)}")
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"expected lower-case hex of {algorithm}, got {value!r:.140}")
    return value
