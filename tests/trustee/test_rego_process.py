"""Rego in a process beside: in time, without anything left over, and never in our own way."""

from __future__ import annotations

import importlib.util
import io
import json
import threading
import time

import pytest

from tng.attest.policy.rego import RegoError, load_engine
from tng.trustee.rego_process import RegoProcess
from tng.trustee.rego_worker import serve

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("regorus") is None, reason="no Rego engine (extra `rego`)"
)
HEAD = "package policy\n\nimport rego.v1\n\n"
ENDLESS = HEAD + (
    "hardware := 2 if {\n\tsome i in numbers.range(1, 9000)\n"
    "\tsome j in numbers.range(1, 9000)\n\ti * j == -1\n}\n"
)
GREEDY = HEAD + "hardware := count(numbers.range(1, 200000000))\n"


@pytest.fixture(scope="module")
def process():
    with RegoProcess() as running:
        yield running


def test_it_answers_as_the_engine_itself_does(process):
    text = (
        HEAD + 'hardware := 2 if input.a in query_reference_value("ä")\nexecutables := [1, null]\n'
    )
    question = (text, ["hardware", "executables", "other"], {"a": "b"}, {"reference": {"ä": ["b"]}})
    assert process.engine().query(*question) == load_engine().query(*question)
    assert process.query(*question) == {"hardware": 2, "executables": [1, None]}
    process.parse(text)


def test_nothing_of_one_question_is_left_for_the_next(process):
    text = HEAD + "hardware := input.a\n"
    assert process.query(text, ["hardware"], {"a": 1}, {}) == {"hardware": 1}
    assert process.query(text, ["hardware"], {}, {}) == {}
    assert process.query(HEAD, ["hardware"], {"a": 1}, {}) == {}


def test_what_the_engine_refuses_is_the_same_error(process):
    with pytest.raises(RegoError, match=r"policy\.rego:5"):
        process.parse(HEAD + "x := [")
    with pytest.raises(RegoError, match="expects string"):
        process.query(HEAD + "a if contains(1, 2)", ["a"], {}, {})


@pytest.mark.slow
def test_an_evaluation_that_takes_too_long_is_ended_and_holds_up_nobody():
    with RegoProcess(limit_s=0.4) as process:
        seen = []
        asking = threading.Thread(target=lambda: seen.append(_error_of(process)))
        begin = time.monotonic()
        asking.start()
        worst = 0.0
        while asking.is_alive():
            before = time.monotonic()
            asking.join(0.01)
            worst = max(worst, time.monotonic() - before)
        assert seen == ["not evaluated within 0.4 s"]
        assert time.monotonic() - begin < 5
        # The engine keeps its interpreter while it evaluates; this one was never kept.
        assert worst < 0.3


def _error_of(process):
    try:
        process.query(ENDLESS, ["hardware"], {}, {})
    except RegoError as exc:
        return str(exc)
    return "evaluated"


def test_a_question_waits_for_others_no_longer_than_its_own_time():
    with RegoProcess(limit_s=0.05) as process, process._lock:
        assert _error_of(process).startswith("not begun within 0.05 s")


@pytest.mark.slow
def test_after_an_end_in_mid_evaluation_the_next_question_is_answered():
    with RegoProcess() as process:
        process.parse(HEAD)
        killer = threading.Timer(0.2, process._process.kill)
        killer.start()
        with pytest.raises(RegoError, match="ended without an answer"):
            process.query(ENDLESS, ["hardware"], {}, {})
        killer.join()
        assert process.query(HEAD + "hardware := 2", ["hardware"], {}, {}) == {"hardware": 2}


@pytest.mark.slow
def test_an_evaluation_that_wants_more_memory_than_there_is_gets_none():
    with (
        RegoProcess() as process,
        pytest.raises(RegoError, match=r"ended without an answer|not evaluated"),
    ):
        process.query(GREEDY, ["hardware"], {}, {})


def test_closing_ends_the_process_and_may_be_repeated():
    process = RegoProcess()
    process.close()
    process.parse(HEAD)
    running = process._process
    process.close()
    process.close()
    assert running.returncode is not None


def test_the_worker_answers_line_by_line():
    questions = [
        {"text": HEAD},
        {"text": "x"},
        {"text": HEAD + "a := 1", "rules": ["a"], "claims": {}, "data": {}},
    ]
    answers = io.BytesIO()
    serve([json.dumps(question).encode() for question in questions], answers, load_engine())
    first, second, third = map(json.loads, answers.getvalue().splitlines())
    assert (first, third) == ({}, {"answers": {"a": 1}})
    assert second.keys() == {"error"}
