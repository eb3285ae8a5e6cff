"""The newline rule of key files: a key that an editor or a shell wrote ends with one newline.

`cat << EOF > key-file` appends a newline that is not part of the key; a key that is typed into a
form has none.  Both must open the same model, so one newline at the end, and only one, is no part
of a key.
"""

from __future__ import annotations


def without_newline(data: bytes) -> bytes:
    """The octets of a key file without the one newline (LF) at its end, if there is one."""
    return data.removesuffix(b"\n")
