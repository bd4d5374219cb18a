"""Findings as other SIEMs want them: pure projections of an OCSF Detection Finding, which loses nothing by them."""

from schemas.siem.cef import cef_line
from schemas.siem.ecs import ecs_document

__all__ = ["cef_line", "ecs_document"]
