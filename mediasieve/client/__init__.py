"""A client of the ingest gateway, blocking and asynchronous, over the gateway's own models."""

from mediasieve.client.asynchronous import AsyncClient
from mediasieve.client.blocking import Client
from mediasieve.client.common import GatewayProblem, GatewayUnavailable, Retry
from schemas.api import Accepted, BatchAnswer, BatchItem, DecisionEvent, MediaState, MediaStatus, RejectionEvent
from schemas.media import MediaReference

__all__ = [
    "Accepted",
    "AsyncClient",
    "BatchAnswer",
    "BatchItem",
    "Client",
    "DecisionEvent",
    "GatewayProblem",
    "GatewayUnavailable",
    "MediaReference",
    "MediaState",
    "MediaStatus",
    "RejectionEvent",
    "Retry",
]
