"""What a page says after a form was sent: a code in the address, never text, so that nobody can put words in it."""

from __future__ import annotations

NOTICES = {
    "nothing_left": "There is nothing left for you to claim.",
    "closed_block": "Recorded. The case is closed: block.",
    "closed_pass": "Recorded. The case is closed: pass.",
    "closed_escalate": "Recorded. The case is closed as it stood: escalate.",
    "waits": "Recorded. The case waits for another reviewer.",
    "skipped": "Skipped. Somebody else will be asked.",
    "released": "Given back to the queue.",
    "appealed": "Appealed. The case is open again, for others than you.",
}


def notice(code: str) -> str:
    """The sentence, or nothing for a code that is none of ours."""
    return NOTICES.get(code, "")
