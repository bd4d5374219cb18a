"""What the OpenAPI document says beyond what the routes' signatures do: bodies, examples, credentials, errors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from schemas.api import MAX_BATCH, DecisionEvent, Problem, RejectionEvent
from schemas.base import SCHEMA_MAJOR
from schemas.media import MediaReference
from workers.gateway.settings import GatewaySettings
from workers.web.problems import MEDIA_TYPE

_REFERENCE = "#/components/schemas/MediaReference"
REFERENCE_EXAMPLES: dict[str, Any] = {
    "smallest": {
        "summary": "The least there is",
        "value": {"uri": "https://example.org/photo.jpg"},
    },
    "full": {
        "summary": "With everything a producer may know",
        "value": {
            "uri": "https://example.org/photo.jpg",
            "media_id": "acme-1",
            "tenant": "acme",
            "source": "upload-service",
            "content_type": "image/jpeg",
            "size_bytes": 48213,
            "priority": "high",
            "expires_at": "2036-01-31T12:00:00Z",
            "labels": {"album": "summer"},
        },
    },
}
_UPLOAD_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["file"],
    "additionalProperties": False,
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "JPEG, PNG, WebP, TIFF or BMP"},
        "reference": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "a MediaReference as JSON, without `uri`",
        },
    },
}
SUBMISSION_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": _REFERENCE}, "examples": REFERENCE_EXAMPLES},
            "multipart/form-data": {
                "schema": _UPLOAD_SCHEMA,
                "encoding": {"file": {"contentType": "image/jpeg, image/png, image/webp, image/tiff, image/bmp"}},
                "examples": {
                    "with_fields": {
                        "summary": "A file and its fields",
                        "value": {"file": "(bytes)", "reference": '{"media_id": "acme-2", "tenant": "acme"}'},
                    }
                },
            },
        },
    }
}
BATCH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["items"],
                    "additionalProperties": False,
                    "properties": {
                        "items": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": MAX_BATCH,
                            "items": {},
                            "description": "each a MediaReference; one that is none is refused alone",
                        }
                    },
                },
                "examples": {
                    "two": {
                        "summary": "One item is taken, one refused",
                        "value": {"items": [{"uri": "https://example.org/a.png"}, {"media_id": "no-uri"}]},
                    }
                },
            }
        },
    }
}
EVIDENCE_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The bytes.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
STREAM_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events `decision` (DecisionEvent) and `rejection` (RejectionEvent) as JSON in `data`.",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'event: decision\ndata: {"type":"decision","outcome":"pass"}\nid: 42\n\n',
            }
        },
    }
}
_DESCRIPTION = """Media in, decisions out, for producers that do not speak Kafka.

Every request needs `Authorization: Bearer` with an API key (`mediasieve apikeys create`) or, where it is configured, a
token of the OpenID provider. Faults are `application/problem+json`; `type` names the kind and stays the same."""


def install_openapi(app: FastAPI, version: str, settings: GatewaySettings) -> None:
    """The document at `/openapi.json`."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, version, settings)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _document(app: FastAPI, version: str, settings: GatewaySettings) -> dict[str, Any]:
    document = get_openapi(
        title="mediasieve ingest gateway",
        version=version,
        description=_DESCRIPTION,
        routes=app.routes,
        servers=[{"url": settings.public_url}] if settings.public_url else None,
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for model in (Problem, MediaReference, DecisionEvent, RejectionEvent):
        schemas |= _schemas(model)
    schemas["MediaReference"]["properties"]["schema_version"]["pattern"] = rf"^{SCHEMA_MAJOR}\.[0-9]{{1,4}}$"
    schemas["MediaReference"]["properties"]["uri"] |= {
        "pattern": rf"^({'|'.join(sorted(settings.schemes))}):[^\x00-\x20\x7f]{{1,4079}}$",
        "description": "a key may be granted other schemes than these",
    }
    for unused in ("HTTPValidationError", "ValidationError"):  # ours are problems
        schemas.pop(unused, None)
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "an API key, or a token of the OpenID provider"}
    }
    document["security"] = [{"bearer": []}]
    for path in document["paths"].values():
        for operation in path.values():
            _only_problems(operation)
            for parameter in operation.get("parameters", ()):
                _never_null(parameter)
    return document


def _schemas(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    inner = schema.pop("$defs", {})
    return {model.__name__: schema, **inner}


def _only_problems(operation: dict[str, Any]) -> None:
    """FastAPI adds its own 422 beside ours."""
    for status, answer in operation["responses"].items():
        if int(status) >= 400:
            answer["content"] = {MEDIA_TYPE: answer["content"][MEDIA_TYPE]}


def _never_null(parameter: dict[str, Any]) -> None:
    """A parameter that is left out is not there; the text `null` would be a value."""
    schema = parameter["schema"]
    choices = [choice for choice in schema.pop("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) == 1:
        schema |= choices[0]
