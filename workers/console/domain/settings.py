"""How the review queue works."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from schemas.decision import Outcome
from schemas.review import Label
from schemas.types import Identifier

Weight = Annotated[float, Field(ge=0.0, le=1.0)]


class PrioritySettings(BaseModel):
    """The section [console.review.priority]; see docs/review-queue.md for the formula."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    margin: float = Field(default=0.5, gt=0.0, le=1.0, description="weight of the score's nearness to a block")
    disagreement: Weight = Field(default=0.2, description="weight of the distance between the tiers' scores")
    severity: Weight = Field(default=0.3, description="weight of the source's severity")
    source_severity: dict[Identifier, Weight] = Field(
        default_factory=dict, description='severity of single sources, such as {"front-page": 1.0}'
    )
    default_severity: Weight = Field(default=0.0, description="severity of every other source")
    ageing_s: float = Field(
        default=86_400.0, gt=0.0, description="waiting time that outweighs all urgency: nothing starves"
    )


class ReviewSettings(BaseModel):
    """The section [console.review]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lease_s: float = Field(default=300.0, gt=0.0, le=86_400.0, description="how long a claim lasts without a renewal")
    skip_hold_s: float = Field(
        default=14_400.0, ge=0.0, description="how long a case that a reviewer skipped is not offered to the same one"
    )
    four_eyes_labels: frozenset[Label] = Field(
        default=frozenset({Label.GENERATED}), description="labels that two reviewers must agree on"
    )
    four_eyes_outcomes: frozenset[Outcome] = Field(
        default=frozenset(), description="outcomes that two reviewers must agree on"
    )
    four_eyes_appeals: bool = Field(default=True, description="two reviewers must agree on every appeal")
    gold_share: float = Field(
        default=0.02, ge=0.0, le=0.5, description="share of claims that are gold items, where there are some left"
    )
    page_rows: int = Field(default=50, ge=1, le=500, description="rows of a list's page")
    history_days: float = Field(
        default=30.0, gt=0.0, description="how long the machine's passes and blocks can be searched and appealed"
    )
    keep_released: bool = Field(
        default=True,
        description="whether media that the classifier released is kept for search, appeals and the dashboard; false "
        "spares the database of a large fleet most of its rows",
    )
    publish_batch: int = Field(default=500, ge=1, le=10_000, description="outbox records in one flush to Kafka")
    publish_every_s: float = Field(default=0.5, gt=0.0, le=60.0, description="pause of a publisher with nothing to do")
    priority: PrioritySettings = PrioritySettings()
