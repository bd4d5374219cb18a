"""A finding loses nothing of its decision, whatever the decision."""

from __future__ import annotations

import ocsf_emitter
from hypothesis import given, settings
from jsonschema import Draft202012Validator
from ocsf_emitter import models as oracle

from schemas import generate
from schemas.decision import Decision, Outcome
from schemas.ocsf import DetectionFinding, decision_from_finding, encode_finding, finding_from_decision
from schemas.wire import parse_json
from tests.support.record_strategies import decisions

SCHEMA = Draft202012Validator(generate.json_schema(DetectionFinding))


@settings(max_examples=100, deadline=None)
@given(decisions())
def test_decision_to_finding_and_back(decision: Decision) -> None:
    value = encode_finding(finding_from_decision(decision))
    assert decision_from_finding(value) == decision
    assert decision_from_finding(parse_json(value)) == decision
    assert encode_finding(finding_from_decision(decision_from_finding(value))) == value


@settings(max_examples=40, deadline=None)
@given(decisions())
def test_every_finding_is_valid_by_our_schema_and_by_the_oracle(decision: Decision) -> None:
    value = encode_finding(finding_from_decision(decision))
    SCHEMA.validate(parse_json(value))
    ocsf_emitter.validate(oracle.DetectionFinding.model_validate_json(value))


@settings(max_examples=60, deadline=None)
@given(decisions())
def test_only_a_pass_is_allowed_and_quiet(decision: Decision) -> None:
    finding = finding_from_decision(decision)
    passed = decision.outcome is Outcome.PASS
    assert (finding.action == "Allowed") == passed
    assert finding.is_alert != passed
    assert (finding.priority_id is not None) == (decision.outcome is Outcome.ESCALATE)
