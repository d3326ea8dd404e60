"""Who turns the laboratory's switch, and when; it knows the page and no consumer."""

from __future__ import annotations

from http import HTTPStatus

from clinic.simulation.client import Client

CYCLE = 60.0
"""Seconds from normal to normal when the traffic has no end."""

_PHASES = ((0.2, "normal"), (0.5, "slow"), (0.8, "flaky"), (1.0, "normal"))
"""Up to which part of a run the analyser behaves how.

The last part is normal: what has piled up must be gone when the run ends.
"""


def mode_at(elapsed: float, seconds: float) -> str:
    """Say how the analyser behaves `elapsed` seconds into a run (0: without end)."""
    part = elapsed / seconds if seconds else elapsed % CYCLE / CYCLE
    return next((mode for end, mode in _PHASES if part < end), "normal")


class SwitchTurner:
    """Turns the switch on its page, as a person would; one thread only."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.mode = "normal"

    def turn(self, mode: str) -> None:
        """Turn the switch, if it is not there already."""
        if mode == self.mode:
            return
        answer = self._client.post_form("/switches/", {"mode": mode})
        if answer.status != HTTPStatus.FOUND:
            raise RuntimeError(f"the switch answered {answer.status}, not a redirect")
        self.mode = mode
