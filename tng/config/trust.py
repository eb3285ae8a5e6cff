"""The rule that every tunnel end says what it trusts: `attest`, `verify`, or `"no_ra": true`.

Source: TNG 2.12, with the words of the reference.
"""

from __future__ import annotations

from collections.abc import Iterator

from tng.config.strict import Fault


def trust_faults(*, no_ra: bool, attest: bool, verify: bool, where: str) -> Iterator[Fault]:
    """Faults of an object that has these three keys.

    Args:
        no_ra: value of the key.
        attest: whether the key is there.
        verify: whether the key is there.
        where: name of the element, for the message.
    """
    if not (no_ra or attest or verify):
        yield Fault(
            (),
            "at least one of 'attest' and 'verify' field and '\"no_ra\": true' "
            f"should be set for '{where}'",
        )
    if no_ra and verify:
        yield Fault(("no_ra",), "the 'no_ra: true' flag should not be used with 'verify' field")
    if no_ra and attest:
        yield Fault(("no_ra",), "the 'no_ra: true' flag should not be used with 'attest' field")
