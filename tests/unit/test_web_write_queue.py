"""Writers of one SQLite file get their turn in the order in which they came."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from tests.support.waiting import wait_until
from workers.web.database import DatabaseSettings, open_database, reading
from workers.web.write_queue import WriteQueue, write_queue

WAIT_S = 60.0


def open_at(home: Path, busy_timeout_s: float = WAIT_S) -> Engine:
    url = SecretStr(f"sqlite:////{home / 'x.sqlite'}")
    return open_database(DatabaseSettings(url=url, busy_timeout_s=busy_timeout_s))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = open_at(tmp_path)
    with made.begin() as connection:
        connection.execute(text("create table log (who text)"))
    yield made
    made.dispose()


def write(engine: Engine, who: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("insert into log values (:who)"), {"who": who})


def log(engine: Engine) -> list[str]:
    with reading(engine) as connection:
        return list(connection.scalars(text("select who from log order by rowid")))


def test_first_come_first_served() -> None:
    queue, served = WriteQueue(), []
    assert queue.enter(0.0)

    def member(number: int) -> None:
        assert queue.enter(WAIT_S)
        served.append(number)
        queue.leave()

    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=member, args=(number,)))
        threads[-1].start()
        wait_until(lambda: len(queue) == len(threads), WAIT_S, "one more waits")
    queue.leave()
    for thread in threads:
        thread.join()
    assert served == [0, 1, 2, 3, 4]
    assert queue.enter(0.0)


def test_who_waited_too_long_is_out_and_holds_up_nobody() -> None:
    queue = WriteQueue()
    assert queue.enter(0.0)
    assert not queue.enter(0.0)
    assert len(queue) == 0
    queue.leave()
    assert queue.enter(0.0)


def test_who_writes_again_and_again_does_not_pass_over_who_waits(engine: Engine, tmp_path: Path) -> None:
    """Another engine on the same file, as gateway and console of one process have them."""
    other, queue = open_at(tmp_path), write_queue(tmp_path / "x.sqlite")
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            waiting = pool.submit(write, other, "who waits")
            wait_until(lambda: len(queue) == 1, WAIT_S, "the other waits")
            connection.execute(text("insert into log values ('first')"))
        write(engine, "again")
        waiting.result()
    assert log(engine) == ["first", "who waits", "again"]
    other.dispose()


def test_the_turn_ends_with_the_transaction_however_it_ends(engine: Engine) -> None:
    with pytest.raises(RuntimeError), engine.begin():
        raise RuntimeError
    with pytest.raises(OperationalError), engine.begin() as connection:
        connection.execute(text("nonsense"))
    write(engine, "after")
    assert log(engine) == ["after"]


def test_readers_do_not_wait_for_writers(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("insert into log values ('unseen')"))
        assert log(engine) == []


def test_a_turn_that_does_not_come_is_a_locked_database(engine: Engine, tmp_path: Path) -> None:
    hasty = open_at(tmp_path, busy_timeout_s=0.001)
    with engine.begin(), pytest.raises(OperationalError, match=r"database is locked: .* writers"):
        write(hasty, "hasty")
    write(hasty, "later")
    assert log(engine) == ["later"]
    hasty.dispose()
