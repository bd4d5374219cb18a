"""The numbers of OCSF 1.5.0 that a finding of ours can carry, named as the schema captions them."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

OCSF_VERSION: Literal["1.5.0"] = "1.5.0"
CLASS_UID: Literal[2004] = 2004


class Activity(IntEnum):
    """OCSF `activity_id`: the machine's verdict creates a finding, a review updates it, a closed case closes it."""

    CREATE = 1
    UPDATE = 2
    CLOSE = 3


class Severity(IntEnum):
    """OCSF `severity_id`. Nothing is Critical: one item of media says nothing of the scope that the word claims."""

    INFORMATIONAL = 1
    LOW = 2
    MEDIUM = 3
    HIGH = 4


class Confidence(IntEnum):
    """OCSF `confidence_id`."""

    UNKNOWN = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3


class Status(IntEnum):
    """OCSF `status_id` of a finding."""

    NEW = 1
    IN_PROGRESS = 2
    SUPPRESSED = 3
    RESOLVED = 4
    ARCHIVED = 5


class Action(IntEnum):
    """OCSF `action_id`. Held media is denied until a reviewer allows it."""

    ALLOWED = 1
    DENIED = 2


class Disposition(IntEnum):
    """OCSF `disposition_id`."""

    ALLOWED = 1
    BLOCKED = 2
    DELAYED = 14
    ERROR = 27


class IncidentPriority(IntEnum):
    """OCSF `priority_id`."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3


class Verdict(IntEnum):
    """OCSF `verdict_id`: what people say of the claim that the media is synthetic."""

    FALSE_POSITIVE = 1
    TRUE_POSITIVE = 2
    SUSPICIOUS = 4
    INSUFFICIENT_DATA = 7


def caption(value: IntEnum) -> str:
    """As OCSF writes it: `IN_PROGRESS` -> `In Progress`."""
    return value.name.replace("_", " ").title()
