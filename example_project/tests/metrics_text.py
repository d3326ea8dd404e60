"""A scrape written by hand: a quiet bus that obeys the law; no bus made it."""

from __future__ import annotations

from pathlib import Path

QUIET = Path(__file__).with_name("quiet.prom").read_text()
