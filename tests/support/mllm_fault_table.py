"""Every fault of a model server, and what the worker makes of it: the table behind `docs/mllm-faults.md`.

`python -m tests.support.mllm_fault_table --write` writes the page, `--check` exits 1 when it is stale.
`tests/integration/test_mllm_faults.py` runs every row.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from schemas.decision import ReasonCode
from tests.support.mllm_fault_server import REPORT, Act, Exchange, works

PAGE = Path(__file__).parents[2] / "docs/mllm-faults.md"
TIMEOUT_S = 1.0
RETRY_AFTER_S = 2
OLD_S = 1000.0

_HEAD = """<!-- Derived: python -m tests.support.mllm_fault_table --write -->

# Faults of the model server

What the MLLM worker makes of each fault. `tests/integration/test_mllm_faults.py` runs every row against a scripted
server, through the worker's stage with its limits, and checks that the next item is decided once the server works
again and the pause that the limits asked for is over. Rows marked \\* leave that out: they last until somebody corrects
the settings. No row ends in a pass.

- *wait*: the item's offset stays and it is tried again with growing delay, no sooner than the server or the limits ask
  for. After `runner.dependency_max_age_s` it escalates with the reason shown.
- *escalate*: people decide, with this reason.
- *decides*: the item is decided as without the fault.
- *questions*: how many the server got of this item: 1 examination, 2 report, 3 the one retry of a report. 0: none.

| fault | outcome | reason | questions |
|---|---|---|---|
"""

Outcome = Literal["wait", "escalate", "decides"]


@dataclass(frozen=True)
class Fault:
    """One row. `act`: how the server answers; `before`: items that it meets first; `age_s`: of the item in its topic.

    `server`: flags of the server; `settings`: of the worker; `down`: nothing listens; `scheme`: of the address;
    `heals`: the stage decides again when the server works; where not, a working server changes nothing.
    """

    cause: str
    outcome: Outcome
    reason: ReasonCode
    questions: int
    act: Act = works
    before: int = 0
    age_s: float = 0.0
    server: dict[str, bool] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    timeout_s: float = 20.0
    retry_after_s: float = 0.0
    down: bool = False
    scheme: str = "http"
    heals: bool = True

    @property
    def line(self) -> str:
        mark = "" if self.heals else " \\*"
        return f"| {self.cause}{mark} | {self.outcome} | `{self.reason.value}` | {self.questions} |\n"


def _status(status: int, **headers: str) -> Act:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda exchange: exchange.reply(status, {"error": "engine fault"}, named)


def _in_report(act: Act) -> Act:
    """The examination goes well, the report does not; nor does its retry."""
    return lambda exchange: works(exchange) if exchange.pass_name == "reason" else act(exchange)


def _says(text: str | None, finish: str = "stop", **message: Any) -> Act:
    return lambda exchange: exchange.say(text, finish, **message)


def _second_try_works(exchange: Exchange) -> None:
    (works if exchange.pass_name != "report" else _says("{"))(exchange)


_SPECTRAL = {"source": "spectrum", "band": "high", "quadrant": "whole", "region": None, "observation": "a peak"}
_UNGROUNDED = REPORT | {"observations": [_SPECTRAL | {"feature": "no_such_feature"}]}
_OUTSIDE = REPORT | {
    "observations": [
        {"source": "image", "band": None, "quadrant": "whole", "region": [0, 0, 9000, 9000], "observation": "hair"}
    ]
}
_WRONG = REPORT | {"confidence": 7}
_ENDLESS = json.dumps(REPORT)[:40] + "the grid, " * 400
_FIVE_MB = b'{"choices": "' + b"x" * 5_000_000 + b'"}'
_LOOP = json.dumps(REPORT | {"primary_evidence": "the grid, " * 30})
_CIRCUIT: dict[str, Any] = {"limits": {"failures": 2, "open_s": 600.0}}
_BUDGET: dict[str, Any] = {"limits": {"tokens_per_minute": 100_000}}
_R = ReasonCode

FAULTS: tuple[Fault, ...] = (
    Fault("nothing listens at the address", "wait", _R.MLLM_UNAVAILABLE, 0, down=True),
    Fault("TLS handshake fails", "wait", _R.MLLM_UNAVAILABLE, 0, scheme="https", heals=False),
    Fault("HTTP 503", "wait", _R.MLLM_UNAVAILABLE, 1, _status(503)),
    Fault("HTTP 502", "wait", _R.MLLM_UNAVAILABLE, 1, _status(502)),
    Fault("HTTP 429", "wait", _R.MLLM_OVERLOADED, 1, _status(429)),
    Fault(
        "HTTP 429 with `Retry-After`",
        "wait",
        _R.MLLM_OVERLOADED,
        1,
        _status(429, retry_after=str(RETRY_AFTER_S)),
        retry_after_s=RETRY_AFTER_S,
    ),
    Fault("HTTP 500", "escalate", _R.MLLM_UNAVAILABLE, 1, _status(500)),
    Fault("HTTP 404, such as for a wrong model name", "escalate", _R.MLLM_UNAVAILABLE, 1, _status(404)),
    Fault("HTTP 401", "escalate", _R.MLLM_UNAVAILABLE, 1, _status(401)),
    Fault("HTTP 504", "escalate", _R.MLLM_TIMEOUT, 1, _status(504)),
    Fault("no answer within `timeout_s`", "escalate", _R.MLLM_TIMEOUT, 1, Exchange.hang, timeout_s=TIMEOUT_S),
    Fault("an answer that drips in", "escalate", _R.MLLM_TIMEOUT, 1, Exchange.drip, timeout_s=TIMEOUT_S),
    Fault("the connection is cut within the answer", "escalate", _R.MLLM_UNAVAILABLE, 1, Exchange.cut),
    Fault("an answer that is no completion", "escalate", _R.MLLM_INVALID_REPORT, 1, partial(_status(200))),
    Fault("an answer of 5 MB", "escalate", _R.MLLM_INVALID_REPORT, 1, lambda e: e.reply(200, _FIVE_MB)),
    Fault("refusal of the examination", "escalate", _R.MLLM_REFUSED, 1, _says(None, refusal="I will not")),
    Fault("refusal of the report", "escalate", _R.MLLM_REFUSED, 2, _in_report(_says(None, refusal="I will not"))),
    Fault("`finish_reason` content_filter", "escalate", _R.MLLM_REFUSED, 1, _says("", "content_filter")),
    Fault("the report is no JSON", "escalate", _R.MLLM_INVALID_REPORT, 3, _in_report(_says("It is fake."))),
    Fault(
        "the report is JSON of another schema",
        "escalate",
        _R.MLLM_INVALID_REPORT,
        3,
        _in_report(_says('{"verdict": "authentic", "confidence": 1.0}')),
    ),
    Fault(
        "the report has a number out of range",
        "escalate",
        _R.MLLM_INVALID_REPORT,
        3,
        _in_report(_says(json.dumps(_WRONG))),
    ),
    Fault(
        "the report is cut off by length",
        "escalate",
        _R.MLLM_INVALID_REPORT,
        3,
        _in_report(_says(json.dumps(REPORT)[:-9], "length")),
    ),
    Fault(
        "the report repeats itself until it is cut off",
        "escalate",
        _R.MLLM_INVALID_REPORT,
        3,
        _in_report(_says(_ENDLESS, "length")),
    ),
    Fault(
        "a text of the report repeats itself, and the report is whole",
        "escalate",
        _R.MLLM_INVALID_REPORT,
        3,
        _in_report(_says(_LOOP)),
    ),
    Fault("the report is empty", "escalate", _R.MLLM_INVALID_REPORT, 3, _in_report(_says(""))),
    Fault(
        "the report cites a feature that was not shown",
        "escalate",
        _R.MLLM_INVALID_REPORT,
        3,
        _in_report(_says(json.dumps(_UNGROUNDED))),
    ),
    Fault(
        "the report points outside the image",
        "escalate",
        _R.MLLM_INVALID_REPORT,
        3,
        _in_report(_says(json.dumps(_OUTSIDE))),
    ),
    Fault("the first report is no JSON, the retry is good", "decides", _R.SYNTHETIC_CONFIRMED, 3, _second_try_works),
    Fault("the server gives no log probabilities", "decides", _R.SYNTHETIC_CONFIRMED, 2, server={"logprobs": False}),
    Fault("the server refuses guided JSON", "decides", _R.SYNTHETIC_CONFIRMED, 2, server={"guided_json": False}),
    Fault(
        "the circuit is open, since many answers in a row were HTTP 500",
        "wait",
        _R.MLLM_UNAVAILABLE,
        0,
        _status(500),
        2,
        settings=_CIRCUIT,
    ),
    Fault(
        "the circuit is open, since many answers in a row came too late",
        "wait",
        _R.MLLM_OVERLOADED,
        0,
        _status(504),
        2,
        settings=_CIRCUIT,
    ),
    Fault(
        "the circuit is open after HTTP 500, and the item is older than `max_wait_s`",
        "escalate",
        _R.MLLM_UNAVAILABLE,
        0,
        _status(500),
        2,
        age_s=OLD_S,
        settings=_CIRCUIT,
    ),
    Fault(
        "the circuit is open after HTTP 504, and the item is older than `max_wait_s`",
        "escalate",
        _R.MLLM_OVERLOADED,
        0,
        _status(504),
        2,
        age_s=OLD_S,
        settings=_CIRCUIT,
    ),
    Fault(
        "`tokens_per_minute` is spent",
        "wait",
        _R.MLLM_OVERLOADED,
        0,
        partial(works, usage=(200_000, 0)),
        1,
        settings=_BUDGET,
    ),
    Fault(
        "`tokens_per_minute` is spent, and the item is older than `max_wait_s`",
        "escalate",
        _R.MLLM_OVERLOADED,
        0,
        partial(works, usage=(200_000, 0)),
        1,
        age_s=OLD_S,
        settings=_BUDGET,
    ),
)


def page() -> str:
    """The text of `docs/mllm-faults.md`."""
    return _HEAD + "".join(fault.line for fault in FAULTS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.mllm_fault_table", description=__doc__)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--write", action="store_true", help="write the page")
    wanted.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page is stale")
    if parser.parse_args(arguments).write:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page():
        sys.stderr.write("docs/mllm-faults.md is stale: run python -m tests.support.mllm_fault_table --write\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
