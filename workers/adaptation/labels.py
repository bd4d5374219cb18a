"""From single reviews to labels that people agree on, and how often they do not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from schemas.review import Label
from workers.adaptation.records import LabelledSample

EVERY_TENANT = "*"


def taught_by(samples: Iterable[LabelledSample], tenants: Collection[str]) -> Iterator[LabelledSample]:
    """What reviewers of these tenants said; `*` among them stands for all."""
    return (sample for sample in samples if EVERY_TENANT in tenants or sample.tenant in tenants)


@dataclass(frozen=True, slots=True)
class Agreed:
    """An image on whose label all its `reviewers` agree; `sample` is the newest review."""

    sample: LabelledSample
    reviewers: int


@dataclass(frozen=True, slots=True)
class Disputed:
    """An image on which its reviewers differ, and what was said of it."""

    labels: frozenset[Label]
    families: frozenset[str]


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Every reviewed image, once."""

    agreed: tuple[Agreed, ...]
    disputed: tuple[Disputed, ...]

    @classmethod
    def of(cls, samples: Iterable[LabelledSample]) -> LabelSet:
        """Images are told apart by their bytes, across the tenants of these samples, see `taught_by`.

        Of one reviewer the newest word on an image counts.

        A family that only some of them name is theirs to name. `undecidable` is no label.
        """
        by_image: defaultdict[str, dict[str, LabelledSample]] = defaultdict(dict)
        for sample in sorted(samples, key=lambda s: (s.reviewed_at, str(s.review_id))):
            by_image[sample.content_sha256][sample.reviewer] = sample
        agreed, disputed = [], []
        for _, words in sorted(by_image.items()):
            said = [word for word in words.values() if word.label is not Label.UNDECIDABLE]
            if not said:
                continue
            labels = frozenset(word.label for word in said)
            families = frozenset(word.family for word in said if word.family is not None)
            if len(labels) > 1 or len(families) > 1:
                disputed.append(Disputed(labels, families))
                continue
            newest = max(said, key=lambda w: (w.reviewed_at, str(w.review_id)))
            agreed.append(Agreed(newest.model_copy(update={"family": next(iter(families), None)}), len(said)))
        return cls(tuple(agreed), tuple(disputed))

    def families(self) -> list[str]:
        """Families that confirmed generated images are said to be of."""
        return sorted({a.sample.family for a in self.agreed if a.sample.family and _generated(a)})

    def members(self, family: str) -> list[Agreed]:
        """Confirmed generated images of a family, newest first."""
        found = [a for a in self.agreed if _generated(a) and a.sample.family == family]
        return sorted(found, key=lambda a: (a.sample.reviewed_at, a.sample.content_sha256), reverse=True)

    def photographs(self) -> list[Agreed]:
        """Confirmed photographs, newest first."""
        found = [a for a in self.agreed if a.sample.label is Label.PHOTOGRAPH]
        return sorted(found, key=lambda a: (a.sample.reviewed_at, a.sample.content_sha256), reverse=True)

    def contradicted(self, samples: Iterable[LabelledSample], family: str) -> list[LabelledSample]:
        """Those of which people no longer agree that they are generated and of this family."""
        agreed = {a.sample.content_sha256 for a in self.members(family)}
        return [sample for sample in samples if sample.content_sha256 not in agreed]

    def double_reviews(self, family: str) -> tuple[int, int]:
        """How many images were judged by two reviewers or more, and on how many of these they differ.

        Of those that one of them called this family or a photograph: what the family is made of and held against.
        """
        both = [a for a in (*self.members(family), *self.photographs()) if a.reviewers > 1]
        differing = [d for d in self.disputed if family in d.families or Label.PHOTOGRAPH in d.labels]
        return len(both) + len(differing), len(differing)


def _generated(agreed: Agreed) -> bool:
    return agreed.sample.label is Label.GENERATED
