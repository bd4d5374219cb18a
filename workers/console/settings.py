"""Settings of the review console."""

from __future__ import annotations

from workers.console.domain.settings import ReviewSettings
from workers.console.web.settings import PageSettings
from workers.web.settings import WebSettings


class ConsoleSettings(WebSettings):
    """The section [console]."""

    review: ReviewSettings = ReviewSettings()
    page: PageSettings = PageSettings()
