"""A regression, told to whoever reads the topics."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, uuid5

from pipeline.detection.bundle import Bundle
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.client import RecordWriter
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.transport import OutRecord
from schemas.envelope import headers_for, new_trace, schema_uri
from schemas.ocsf.decided import PRODUCT_VERSION
from schemas.ocsf.finding import milliseconds
from schemas.quality import Finding, QualityDetails, QualityEvent, QualityMetadata, QualityProduct, QualitySource
from schemas.topics import Topic
from schemas.wire import encode

_NAMESPACE = uuid5(NAMESPACE_URL, "https://mediasieve.dev/quality")
_MOST = 64


def quality_event(
    source: QualitySource, bundle: Bundle, findings: Iterable[Finding], measured_at: datetime
) -> QualityEvent:
    """The event; of more than 64 findings the first ones, and the message says how many there are.

    Its uid is that of the day and of what was found, so that a run that is repeated after a crash tells nothing new.

    Raises:
        ValueError: there is no finding.
    """
    found = tuple(findings)
    if not found:
        raise ValueError("nothing was found, so there is nothing to announce")
    first = found[0]
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    text = f"{source}: {first.subject}: {first.measure}{more}: {first.detail}"
    what = (f"{each.subject}\x1e{each.measure}" for each in found)
    day = measured_at.astimezone(UTC).date().isoformat()
    name = "\x1f".join((source, bundle.version, bundle.policy.version, day, *what))
    return QualityEvent(
        time=milliseconds(measured_at),
        message=text[:1024],
        metadata=QualityMetadata(
            product=QualityProduct(version=PRODUCT_VERSION), uid=uuid5(_NAMESPACE, name), event_code=source.value
        ),
        unmapped=QualityDetails(
            source=source,
            bundle_version=bundle.version,
            policy_version=bundle.policy.version,
            findings=found[:_MOST],
            measured_at=measured_at,
        ),
    )


def announce(kafka: KafkaSettings, event: QualityEvent) -> None:
    """Write the event to `quality.events`, acknowledged by all replicas.

    Raises:
        KafkaUnavailable: it is not written.
    """
    uid = str(event.metadata.uid)
    headers = headers_for(
        event_type=QualityEvent.event_type,
        source="/mediasieve/evaluation",
        event_id=uid,
        subject=event.unmapped.source.value,
        time=event.unmapped.measured_at,
        traceparent=new_trace(uid).format(),
        data_schema=schema_uri(QualityEvent),
    )
    writer = RecordWriter(kafka)
    name = TopicNames(kafka.topic_prefix).physical(Topic.QUALITY)
    writer.write(OutRecord(name, event.unmapped.source.value.encode(), encode(event), tuple(headers)))
    writer.flush()
