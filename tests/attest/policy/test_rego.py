from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.policy.rego import (
    INSTALL,
    MAX_INPUT,
    MAX_NESTING,
    MAX_POLICY_TEXT,
    RegoError,
    RegorusEngine,
    load_engine,
    make_rego_policy,
)
from tng.errors import ConfigError, ErrorCode, UntrustedPeerError

HAS_ENGINE = importlib.util.find_spec("regorus") is not None
needs_engine = pytest.mark.skipif(not HAS_ENGINE, reason="no Rego engine (extra `rego`)")
HEAD = "package policy\n\nimport rego.v1\n\n"


class FakeEngine:
    """Answers what it was told to."""

    def __init__(self, answers: dict[str, object] | str = "", unparsable: str = "") -> None:
        self.answers = answers
        self.unparsable = unparsable
        self.asked: list[object] = []

    def parse(self, text: str) -> None:
        if self.unparsable:
            raise RegoError(self.unparsable)

    def query(
        self, text: str, rules: Sequence[str], claims: Mapping[str, object], data: object
    ) -> dict[str, object]:
        self.asked.append((list(rules), claims, data))
        if isinstance(self.answers, str):
            raise RegoError(self.answers)
        return dict(self.answers)


def test_eight_rules_make_a_vector() -> None:
    engine = FakeEngine({"hardware": 2, "file_system": 0})
    appraisal = make_rego_policy("p", HEAD, engine).evaluate({"tdx": {}}, {"a": ["b"]})
    assert appraisal.vector == {"hardware": 2, "file-system": 0}
    rules, claims, data = engine.asked[0]
    assert rules[:2] == ["trust_claims", "instance_identity"]
    assert len(rules) == 9
    assert claims == {"tdx": {}}
    assert data == {"reference": {"a": ["b"]}}


def test_one_object_makes_a_vector_and_goes_before_the_rules() -> None:
    engine = FakeEngine({"trust_claims": {"file-system": 2}, "hardware": 97})
    assert make_rego_policy("p", HEAD, engine).evaluate({}, {}).vector == {"file-system": 2}


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({}, "sets no trust claim"),
        ({"hardware": "2"}, "hardware is '2', expected a whole number"),
        ({"hardware": True}, "hardware is 'True', expected a whole number"),
        ({"hardware": 2.5}, "expected a whole number"),
        ({"hardware": None}, "expected a whole number"),
        ({"hardware": 200}, "expected -128 to 127"),
        ({"trust_claims": [2]}, "trust_claims is no object"),
        ({"trust_claims": {"file_system": 2}}, "which is no trust claim"),
        ({"trust_claims": {}, "hardware": 2}, "sets no trust claim"),
        ("boom", "cannot be evaluated: boom"),
    ],
)
def test_an_answer_that_is_no_vector_is_refused(answers: object, message: str) -> None:
    policy = make_rego_policy("p", HEAD, FakeEngine(answers))
    with pytest.raises(UntrustedPeerError, match=message) as caught:
        policy.evaluate({}, {})
    assert caught.value.code is ErrorCode.POLICY_DENIED


def test_claims_beyond_the_limit_are_not_evaluated() -> None:
    engine = FakeEngine({"hardware": 2})
    with pytest.raises(UntrustedPeerError, match="claims have more than"):
        make_rego_policy("p", HEAD, engine).evaluate({"a": "x" * MAX_INPUT}, {})
    assert engine.asked == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "package policy"),
        ("package policies\n", "package policy"),
        ("# package policy\n", "package policy"),
        (HEAD + "x" * MAX_POLICY_TEXT, "more than"),
        (HEAD + "a := " + "[" * (MAX_NESTING + 1), "nested deeper than"),
    ],
)
def test_a_text_that_can_be_no_policy_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_rego_policy("p", text, FakeEngine())


@pytest.mark.parametrize(
    "text",
    [
        "package policy # mine\n",
        "# first\npackage policy\r\n",
        HEAD + 'a := "' + "[" * 50 + '"\n',
        HEAD + "# " + "(" * 50 + "\na := `" + "{" * 50 + "`",
        HEAD + "a := " + "[" * MAX_NESTING + "]" * MAX_NESTING,
    ],
)
def test_brackets_in_texts_and_comments_do_not_nest(text: str) -> None:
    policy = make_rego_policy("p", text, FakeEngine())
    assert policy.text == text
    assert not policy.trusts_all


def test_a_text_that_does_not_parse_is_refused_when_it_is_loaded() -> None:
    with pytest.raises(ConfigError, match="expected Rego: here"):
        make_rego_policy("p", HEAD, FakeEngine(unparsable="here"))


def test_a_missing_engine_says_how_to_install_it() -> None:
    with pytest.raises(ConfigError, match="needs an engine") as caught:
        load_engine("tng_no_such_engine")
    assert INSTALL in str(caught.value)


class FakeModule:
    """Stands for the engine's module."""

    def __init__(self, answer: str = "{}", failing: str = "") -> None:
        self.answer = answer
        self.failing = failing
        self.policies: list[str] = []

    def Engine(self) -> FakeModule:  # noqa: N802 - the module's own name
        return self

    def set_gather_prints(self, b: bool) -> None:
        assert b

    def add_policy(self, path: str, rego: str) -> None:
        self._fail("add_policy")
        self.policies.append(rego)

    def add_data_json(self, data: str) -> None:
        json.loads(data)

    def set_input_json(self, input: str) -> None:  # noqa: A002 - the module's own name
        self._fail("set_input_json")

    def eval_query_as_json(self, query: str) -> str:
        return self.answer

    def _fail(self, name: str) -> None:
        if self.failing == name:
            raise RuntimeError(
                "\n--> p.rego:3:9\n  |\nerror: no\n way\n\nStack backtrace:\n 0: /machine"
            )


def test_the_reference_function_is_added_unless_the_text_has_its_own() -> None:
    module = FakeModule()
    RegorusEngine(module).parse(HEAD)
    assert "query_reference_value(name)" in module.policies[1]
    module = FakeModule()
    RegorusEngine(module).parse(HEAD + "query_reference_value(id) := 1\n")
    assert len(module.policies) == 1


@pytest.mark.parametrize("step", ["add_policy", "set_input_json"])
def test_what_the_engine_says_is_told_without_its_own_stack(step: str) -> None:
    with pytest.raises(RegoError) as caught:
        RegorusEngine(FakeModule(failing=step)).query(HEAD, ["a"], {}, {})
    assert str(caught.value) == "'no way' at p.rego:3:9"


def test_an_undefined_rule_is_left_out_and_a_defined_one_is_not() -> None:
    assert RegorusEngine(FakeModule("{}")).query(HEAD, ["a"], {}, {}) == {}
    answer = json.dumps({"result": [{"expressions": [{"value": False}]}]})
    assert RegorusEngine(FakeModule(answer)).query(HEAD, ["a"], {}, {}) == {"a": False}


@pytest.mark.parametrize("answer", ["", "[]", '{"result":1}', '{"result":[{},{}]}'])
def test_an_answer_of_another_form_is_an_error(answer: str) -> None:
    with pytest.raises(RegoError, match="the engine's answer"):
        RegorusEngine(FakeModule(answer)).query(HEAD, ["a"], {}, {})


@needs_engine
def test_reference_values_are_there_in_both_ways() -> None:
    text = (
        HEAD
        + 'hardware := 2 if input.x in query_reference_value("x")\n'
        + 'executables := 3 if input.x in data.reference["x"]\n'
        + 'configuration := 36 if query_reference_value("y") == null\n'
    )
    policy = make_rego_policy("p", text, load_engine())
    assert policy.evaluate({"x": "a"}, {"x": ["a"]}).vector == {
        "hardware": 2,
        "executables": 3,
        "configuration": 36,
    }
    with pytest.raises(UntrustedPeerError, match="sets no trust claim"):
        policy.evaluate({"x": "a"}, {"y": 1, "x": ["b"]})


@needs_engine
def test_a_policy_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    text = HEAD + 'hardware := 2 if {\n\tprint("here")\n}\n'
    assert make_rego_policy("p", text, load_engine()).evaluate({}, {}).vector == {"hardware": 2}
    assert capfd.readouterr() == ("", "")


@needs_engine
@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("hardware := 2 if contains(input.x, 1)", "expects string"),
        ("hardware := 2\nhardware := 3", "conflict|multiple"),
        ("hardware := {2, 3}", "whole number"),
        ("a := b\nb := a\nhardware := a", "recursion"),
        ('hardware := http.send({"method": "get", "url": "http://127.0.0.1:1"})', "no trust claim"),
    ],
)
def test_what_the_engine_cannot_evaluate_is_refused(rest: str, message: str) -> None:
    with pytest.raises((UntrustedPeerError, ConfigError), match=message):
        make_rego_policy("p", HEAD + rest, load_engine()).evaluate({"x": "a"}, {})


@needs_engine
@given(st.text(max_size=40) | st.text("abif :={}[]()\"'\n,2|_.", max_size=40))
def test_any_text_is_a_policy_or_a_defined_error(text: str) -> None:
    with contextlib.suppress(ConfigError, UntrustedPeerError):
        make_rego_policy("p", HEAD + text, load_engine()).evaluate({}, {})
