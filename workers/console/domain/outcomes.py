"""What people's labels mean: the outcome of each, and how many reviewers must agree on it."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.decision import Outcome
from schemas.review import Label
from workers.console.domain.settings import ReviewSettings

OUTCOME_OF: dict[Label, Outcome] = {
    Label.GENERATED: Outcome.BLOCK,
    Label.AI_PROCESSED: Outcome.PASS,
    Label.PHOTOGRAPH: Outcome.PASS,
    Label.UNDECIDABLE: Outcome.BLOCK,
}
"""As the Close of a finding says: an AI-processed photograph alone never blocks, and what nobody can decide is not
let through."""


def needed(label: Label, votes: Sequence[Label], appealed: bool, settings: ReviewSettings) -> int:
    """How many of the round's votes must be for `label`. Once two reviewers differ, two must agree."""
    four_eyes = (
        label in settings.four_eyes_labels
        or OUTCOME_OF[label] in settings.four_eyes_outcomes
        or (appealed and settings.four_eyes_appeals)
        or any(vote is not label for vote in votes)
    )
    return 2 if four_eyes else 1


def most_needed(appealed: bool, settings: ReviewSettings) -> int:
    """For the label that needs most, before anybody voted."""
    return max(needed(label, (), appealed, settings) for label in Label)


def agreed(label: Label, votes: Sequence[Label], appealed: bool, settings: ReviewSettings) -> bool:
    """True when a vote for `label`, one of `votes`, closes the case.

    Of five votes on four labels two are alike: a round has five at most.
    """
    return votes.count(label) >= needed(label, votes, appealed, settings)
