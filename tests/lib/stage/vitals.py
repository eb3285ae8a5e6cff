"""What a process uses, read from outside: memory, descriptors, processor time (Linux only)."""

from __future__ import annotations

import contextlib
import os
import pathlib
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def resident_octets(pid: int) -> int:
    """Resident memory (VmRSS)."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no memory: it has ended")


def open_descriptors(pid: int) -> int:
    """How many descriptors it has open."""
    return sum(1 for _ in pathlib.Path(f"/proc/{pid}/fd").iterdir())


def processor_seconds(pid: int) -> float:
    """Processor time used so far, user and system, all threads."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    with contextlib.suppress(FileNotFoundError):
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] not in "ZX"
    return False


def busy_share(seconds: float, *pids: int) -> float:
    """Share of one core that the busiest of the processes uses during the next `seconds`."""
    before = [processor_seconds(pid) for pid in pids]
    began = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    used = (processor_seconds(pid) - then for pid, then in zip(pids, before, strict=True))
    return max(used) / took
