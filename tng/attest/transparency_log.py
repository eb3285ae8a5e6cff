"""One entry of a transparency log, proved offline: signed checkpoint, inclusion, entry.

In: the log's own record of an entry (Rekor v2, as JSON) and the keys of trusted logs.  Out: the
octets of the entry, once the log's signature covers a tree that contains them.

    entry  -> leaf hash -> inclusion proof -> root hash -> checkpoint -> signature of the log

Source: RFC 9162 section 2.1.3.2 (inclusion), C2SP signed-note and tlog-checkpoint (checkpoint).

Invariant: what is returned stands in the tree that a trusted log has signed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from tng.attest.base64_text import decode_standard, dump_standard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tng.attest.strict_json import Json

MAX_ENTRY: Final = 64 * 1024
"""Octets of one entry; a DSSE entry with one signature has about 500."""
MAX_CHECKPOINT: Final = 16 * 1024
"""Characters of a checkpoint with all its signatures; each takes about 150."""
MAX_TREE: Final = 1 << 63
"""Entries of a log."""
MAX_PROOF: Final = 64
"""Hashes of a proof: one for each level of the largest tree."""

_ED25519: Final = b"\x01"  # kind of key in a signed note
_HASH_SIZE: Final = 32
_DASH: Final = "\u2014 "  # an em dash stands in front of each signature of a note


def _load(text: str) -> Ed25519PublicKey:
    key = load_der_public_key(base64.b64decode(text))
    assert isinstance(key, Ed25519PublicKey)  # the table below is ours
    return key


KNOWN_LOGS: Final[Mapping[str, Ed25519PublicKey]] = {
    "log2025-1.rekor.sigstore.dev": _load(
        "MCowBQYDK2VwAyEAt8rlp1knGwjfbcXAYPYAkn0XiLz1x8O4t0YkEhie244="
    ),
}
"""Public logs by their origins, from Sigstore's trusted root."""


def prove_entry(entry: Json, logs: Mapping[str, Ed25519PublicKey]) -> bytes:
    """The octets of an entry that stands in a trusted log.

    Args:
        entry: what the log returned when the entry was made.
        logs: keys by origins.

    Raises:
        ValueError: it is no such record, or one of the proofs fails.
    """
    record = _object(entry, "the entry")
    body = _octets(record, "canonicalizedBody", MAX_ENTRY)
    proof = _object(record.get("inclusionProof"), "inclusionProof")
    checkpoint = _object(proof.get("checkpoint"), "checkpoint").get("envelope")
    if not isinstance(checkpoint, str) or len(checkpoint) > MAX_CHECKPOINT:
        raise ValueError(f"checkpoint is no text of at most {MAX_CHECKPOINT} characters")
    origin, size, root = read_checkpoint(checkpoint, logs)
    log_id = _object(record.get("logId"), "logId").get("keyId")
    if log_id != dump_standard(key_id(origin, logs[origin])):
        raise ValueError(f"logId is not that of {origin}")
    if _number(proof, "treeSize") != size or _octets(proof, "rootHash", _HASH_SIZE) != root:
        raise ValueError("treeSize or rootHash is not that of the checkpoint")
    hashes = proof.get("hashes")
    if not isinstance(hashes, list) or len(hashes) > MAX_PROOF:
        raise ValueError(f"hashes is no list of at most {MAX_PROOF}")
    path = [_hash(item) for item in hashes]
    leaf = hashlib.sha256(b"\0" + body).digest()
    if not hmac.compare_digest(root_of(leaf, _number(proof, "logIndex"), size, path), root):
        raise ValueError(f"the inclusion proof does not lead to the root of {origin}")
    return body


def key_id(origin: str, key: Ed25519PublicKey) -> bytes:
    """SHA-256 that stands for a log and its key; a note shows the first 4 octets."""
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(origin.encode() + b"\n" + _ED25519 + raw).digest()


def read_checkpoint(note: str, logs: Mapping[str, Ed25519PublicKey]) -> tuple[str, int, bytes]:
    """Origin, size and root hash of a tree, signed by the log itself.

    Raises:
        ValueError: not a checkpoint, of an unknown log, or not signed by it.
    """
    text, blank, signatures = note.partition("\n\n")
    lines = text.split("\n")
    if not blank or len(lines) < 3:
        raise ValueError("checkpoint is no signed note")
    origin = lines[0]
    if origin not in logs:
        raise ValueError(f"checkpoint is of {origin!r:.120}, known logs: {', '.join(logs)}")
    if not _is_signed(f"{text}\n".encode(), signatures, origin, logs[origin]):
        raise ValueError(f"checkpoint has no valid signature of {origin}")
    size = _decimal(lines[1], "size of the checkpoint")
    if not 1 <= size < MAX_TREE:
        raise ValueError("checkpoint is of an empty tree, or of too large a one")
    return origin, size, _hash(lines[2])


def root_of(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """The root hash that the path leads to (RFC 9162 section 2.1.3.2).

    Raises:
        ValueError: the index is outside the tree, or the path is too long or too short.
    """
    if index >= size:
        raise ValueError(f"entry {index} is outside a tree of {size}")
    at, last, node = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise ValueError("the inclusion proof is too long")
        if at & 1 or at == last:
            node = hashlib.sha256(b"\1" + sibling + node).digest()
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            node = hashlib.sha256(b"\1" + node + sibling).digest()
        at, last = at >> 1, last >> 1
    if last:
        raise ValueError("the inclusion proof is too short")
    return node


def _is_signed(text: bytes, signatures: str, origin: str, key: Ed25519PublicKey) -> bool:
    for line in signatures.splitlines():
        name, _, blob = line.removeprefix(_DASH).rpartition(" ")
        if not line.startswith(_DASH) or name != origin:
            continue
        try:
            octets = decode_standard(blob)
            if octets[:4] == key_id(origin, key)[:4]:
                key.verify(octets[4:], text)
                return True
        except (ValueError, InvalidSignature):
            continue
    return False


def _object(value: Json, name: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no object")  # noqa: TRY004
    return value


def _octets(members: dict[str, Json], name: str, limit: int) -> bytes:
    text = members.get(name)
    if not isinstance(text, str) or len(text) > (limit + 2) // 3 * 4:
        raise ValueError(f"{name} is no base64 of at most {limit} octets")
    return decode_standard(text)


def _hash(value: Json) -> bytes:
    octets = decode_standard(value) if isinstance(value, str) and len(value) == 44 else b""
    if len(octets) != _HASH_SIZE:
        raise ValueError(f"a hash of the log is no base64 of {_HASH_SIZE} octets")
    return octets


def _number(members: dict[str, Json], name: str) -> int:
    """Protobuf's JSON writes 64-bit numbers as text."""
    value = members.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is no number in text")  # noqa: TRY004
    return _decimal(value, name)


def _decimal(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise ValueError(f"{name} is no number")
    return int(text)
