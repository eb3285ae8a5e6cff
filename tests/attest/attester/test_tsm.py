"""tng.attest.attester.tsm: the kernel's interface as its documentation describes it."""

from __future__ import annotations

import base64
import errno
import json
import pathlib
import threading
from dataclasses import dataclass, field

import pytest

from tng.attest.attester.tsm import (
    MAX_ATTEMPTS,
    MAX_QUOTE,
    ConfigfsEntry,
    ReportEntry,
    TsmAttester,
    dump_tdx_evidence,
)
from tng.errors import ErrorCode, EvidenceError

REPORT_DATA = bytes(range(48))
PADDED = REPORT_DATA + bytes(16)


@dataclass
class FakeEntry:
    """An entry that counts writes; `races` are attempts in which somebody else writes too."""

    provider: bytes = b"tdx_guest\n"
    races: int = 0
    busy: int = 0
    quote_size: int = 632
    generation: bytes | None = None
    foreign_data: bool = False
    fault: OSError | None = None
    gate: threading.Event | None = None
    writes: int = 7  # entries may have a past
    inblob: bytes = b""
    removed: int = 0
    root: list[pathlib.Path] = field(default_factory=list)

    def make(self, root: pathlib.Path) -> ReportEntry:
        self.root.append(root)
        return self

    def read(self, attribute: str) -> bytes:
        match attribute:
            case "provider":
                return self.provider
            case "generation":
                return f"{self.writes}\n".encode() if self.generation is None else self.generation
        assert attribute == "outblob"
        if self.gate is not None:
            self.gate.wait(30)
        if self.busy:
            self.busy -= 1
            raise OSError(errno.EBUSY, "Device or resource busy")
        if self.fault is not None:
            raise self.fault
        if self.races:
            self.races -= 1
            self.writes += 1
            self.inblob = b"\xee" * 64
        said = b"\xee" * 64 if self.foreign_data else self.inblob
        return b"quote:" + said + bytes(self.quote_size - 70)

    def write(self, attribute: str, data: bytes) -> None:
        assert attribute == "inblob"
        self.writes += 1
        self.inblob = data

    def remove(self) -> None:
        self.removed += 1


def attester(entry: FakeEntry, tmp_path: pathlib.Path, deadline: float = 5) -> TsmAttester:
    return TsmAttester(
        tmp_path, tmp_path / "CCEL", tmp_path / "aael", deadline=deadline, make_entry=entry.make
    )


async def refusal(entry: FakeEntry, tmp_path: pathlib.Path) -> str:
    with pytest.raises(EvidenceError) as refused:
        await attester(entry, tmp_path).get_evidence(REPORT_DATA)
    assert entry.removed == 1
    assert refused.value.code is ErrorCode.EVIDENCE_UNAVAILABLE
    assert str(tmp_path) in str(refused.value)
    return str(refused.value)


async def test_the_quote_over_the_padded_report_data_is_the_evidence(
    tmp_path: pathlib.Path,
) -> None:
    entry = FakeEntry()
    said = await attester(entry, tmp_path).get_evidence(REPORT_DATA)
    assert (said.tee, said.additional) == ("tdx", None)
    fields = json.loads(said.evidence)
    assert fields["cc_eventlog"] is None
    assert base64.b64decode(fields["quote"]).startswith(b"quote:" + PADDED)
    assert (entry.root, entry.removed) == ([tmp_path], 1)


@pytest.mark.parametrize("fault", ["races", "busy"])
async def test_a_race_is_noticed_and_tried_again_up_to_a_limit(
    tmp_path: pathlib.Path, fault: str
) -> None:
    entry = FakeEntry(**{fault: MAX_ATTEMPTS - 1})  # type: ignore[arg-type]
    said = await attester(entry, tmp_path).get_evidence(REPORT_DATA)
    assert base64.b64encode(b"quote:" + PADDED)[:60] in said.evidence
    entry = FakeEntry(**{fault: MAX_ATTEMPTS})  # type: ignore[arg-type]
    assert "another process" in await refusal(entry, tmp_path)


async def test_a_quote_over_other_data_is_refused(tmp_path: pathlib.Path) -> None:
    assert "without the report data" in await refusal(FakeEntry(foreign_data=True), tmp_path)


async def test_another_provider_is_refused(tmp_path: pathlib.Path) -> None:
    text = await refusal(FakeEntry(provider=b"sev_guest\n"), tmp_path)
    assert "'sev_guest', expected 'tdx_guest'" in text


@pytest.mark.parametrize("generation", [b"", b"x", b"-1", b"9" * 21])
async def test_a_generation_that_is_no_number_is_refused(
    tmp_path: pathlib.Path, generation: bytes
) -> None:
    assert "expected a number" in await refusal(FakeEntry(generation=generation), tmp_path)


async def test_a_quote_at_the_limit_is_taken_and_one_octet_more_is_not(
    tmp_path: pathlib.Path,
) -> None:
    assert await attester(FakeEntry(quote_size=MAX_QUOTE), tmp_path).get_evidence(REPORT_DATA)
    assert "more than" in await refusal(FakeEntry(quote_size=MAX_QUOTE + 1), tmp_path)


async def test_an_error_of_the_kernel_is_told_with_its_name(tmp_path: pathlib.Path) -> None:
    fault = OSError(errno.ETIMEDOUT, "Connection timed out")
    assert "Connection timed out" in await refusal(FakeEntry(fault=fault), tmp_path)


async def test_a_kernel_without_the_interface_is_told_with_what_to_do(
    tmp_path: pathlib.Path,
) -> None:
    with pytest.raises(EvidenceError, match=r"No such file.*Linux 6\.7"):
        await TsmAttester(tmp_path / "none").get_evidence(REPORT_DATA)


async def test_a_quote_that_does_not_come_ends_at_the_deadline(tmp_path: pathlib.Path) -> None:
    entry = FakeEntry(gate=threading.Event())
    with pytest.raises(EvidenceError, match=r"within 0\.05 s"):
        await attester(entry, tmp_path, deadline=0.05).get_evidence(REPORT_DATA)
    assert entry.gate is not None
    entry.gate.set()


def test_evidence_is_sorted_compact_json() -> None:
    assert dump_tdx_evidence(b"q", b"log") == b'{"cc_eventlog":"bG9n","quote":"cQ=="}'
    assert dump_tdx_evidence(b"q", None) == b'{"cc_eventlog":null,"quote":"cQ=="}'


# -- the entry itself, over a directory that stands for configfs --------------------


def test_an_entry_is_a_directory_from_construction_to_removal(tmp_path: pathlib.Path) -> None:
    entry, other = ConfigfsEntry(tmp_path), ConfigfsEntry(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    for each in (entry, other, other):  # a second removal does no harm
        each.remove()
    assert not list(tmp_path.iterdir())


def test_an_entry_reads_and_writes_attributes_that_exist(tmp_path: pathlib.Path) -> None:
    entry = ConfigfsEntry(tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / "inblob").touch()
    entry.write("inblob", PADDED)
    assert entry.read("inblob") == PADDED
    (folder / "outblob").write_bytes(bytes(MAX_QUOTE + 100))
    assert len(entry.read("outblob")) == MAX_QUOTE + 1
    entry.remove()  # configfs would remove the attributes; a plain folder stays
    assert folder.exists()


def test_an_attribute_that_does_not_exist_is_not_created(tmp_path: pathlib.Path) -> None:
    entry = ConfigfsEntry(tmp_path)
    with pytest.raises(FileNotFoundError):
        entry.write("inblob", PADDED)
    with pytest.raises(FileNotFoundError):
        entry.read("outblob")
    entry.remove()
    assert not list(tmp_path.iterdir())
