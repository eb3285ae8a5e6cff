"""The second line of defence against secrets in the log.

In: the text of a log message.  Out: the same text with what looks like a credential replaced by
`***`.  The first line of defence is that no call site logs a secret; this one catches what other
libraries log and what a foreign error message quotes.  Source: RFC 6750 (bearer tokens), RFC 7515
(JWS compact form), RFC 3986 section 3.2.1 (userinfo).
Invariant: text without a credential comes back unchanged.
"""

from __future__ import annotations

import re
from typing import Final

_MASK: Final = "***"

# Each alternative keeps what it captures and hides the rest of its match.  The quantifiers
# never overlap, so that a long hostile line costs time linear in its length.
_CREDENTIAL: Final = re.compile(
    r"""(?ix)
    (\b(?:proxy-authorization|authorization|set-cookie|cookie|x-api-key|api[-_]?key|password)
       ["']{0,2} \s? [:=,] \s? (?:b(?=["']))? ["']? (?:(?:bearer|basic)\s)? ) [^\s"',;}]+
  | (\b(?:bearer|basic)\s) [\w.~+/=-]{6,}
  | (\b[a-z][a-z0-9+.-]{1,11}://) [^\s/@]{1,256} @
  | (\beyJ) [\w-]{8,} \. [\w-]{8,} \. [\w-]*
  | (\bsk-) [\w-]{8,}
    """
)


def redact(text: str) -> str:
    """`text` with every credential that is recognised replaced by `***`."""
    return _CREDENTIAL.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    kept = next(group for group in match.groups() if group is not None)
    end = "@" if match.group().endswith("@") and "://" in kept else ""
    return f"{kept}{_MASK}{end}"
