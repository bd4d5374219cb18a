"""Entry of a worker under test: `python -m tests.fault.worker_main STAGE --journal FILE ...`; see `worker`."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # Below the guard: the stage's child processes import this module again and need nothing of it.
    from tests.fault.worker import main

    sys.exit(main())
