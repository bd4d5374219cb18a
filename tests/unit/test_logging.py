"""JSON logs, one object a line."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import orjson
import pytest
import structlog
from pydantic import ValidationError

from pipeline.observability.logging import LogSettings, configure_logging

Lines = Callable[[], list[dict[str, object]]]


@pytest.fixture
def lines(capsysbinary: pytest.CaptureFixture[bytes]) -> Iterator[Lines]:
    """What stands on standard error, line by line; afterwards nothing is configured."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield lambda: [orjson.loads(line) for line in capsysbinary.readouterr().err.splitlines()]
    root.handlers[:] = before
    root.setLevel(level)
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


def test_every_line_is_one_object_with_time_level_and_what_was_bound(lines: Lines) -> None:
    configure_logging(LogSettings(), worker="spectral", pid="7")
    structlog.get_logger().info("decision", media_id="m-1", text="two\nlines")
    (line,) = lines()
    assert line["event"] == "decision"
    assert (line["worker"], line["pid"], line["level"], line["media_id"]) == ("spectral", "7", "info", "m-1")
    assert str(line["timestamp"]).endswith("Z")


def test_lines_of_other_threads_say_which_worker_too(lines: Lines) -> None:
    configure_logging(LogSettings(), worker="spectral", pid="7")
    thread = threading.Thread(target=lambda: structlog.get_logger().info("references_adopted"))
    thread.start()
    thread.join()
    (line,) = lines()
    assert (line["worker"], line["pid"]) == ("spectral", "7")


@pytest.mark.parametrize(("level", "expected"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_is_the_least_that_is_written(level: str, expected: int, lines: Lines) -> None:
    configure_logging(LogSettings.model_validate({"level": level}))
    logger = structlog.get_logger()
    for name in ("debug", "info", "warning", "error"):
        getattr(logger, name)("x")
    assert len(lines()) == expected


def test_what_is_no_json_becomes_text(lines: Lines) -> None:
    configure_logging(LogSettings())
    structlog.get_logger().info("x", path=logging, when={1, 2} - {2})
    assert lines()[0]["when"] == "{1}"


def test_an_exception_stands_on_the_same_line(lines: Lines) -> None:
    configure_logging(LogSettings())
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = lines()
    assert "ValueError: broken" in str(line["exception"])


def test_lines_of_libraries_are_json_too_from_warning_on(lines: Lines) -> None:
    configure_logging(LogSettings(level="debug"))
    logging.getLogger("librdkafka").info("chatter")
    logging.getLogger("librdkafka").warning("broker %s is away", 3)
    (line,) = lines()
    assert (line["event"], line["text"], line["level"]) == ("library", "broker 3 is away", "warning")


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValidationError, match="level"):
        LogSettings.model_validate({"level": "loud"})


def test_a_library_that_repeats_itself_is_heard_once_in_a_while(lines: Lines) -> None:
    configure_logging(LogSettings())
    for attempt in range(50):
        logging.getLogger("librdkafka").error("connect to 127.0.0.1 failed after %d ms", attempt)
    logging.getLogger("librdkafka").error("another thing")
    assert [line["text"] for line in lines()] == ["connect to 127.0.0.1 failed after 0 ms", "another thing"]
