"""``python -m dashboards``: writes boards and rules into the package, or elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path

from dashboards.reading import PACKAGE
from dashboards.shipped import files


def main() -> None:
    """Write every file that is generated; runbooks are not."""
    parser = argparse.ArgumentParser(prog="python -m dashboards", description=__doc__)
    parser.add_argument("--out", type=Path, default=PACKAGE)
    folder: Path = parser.parse_args().out
    for path, text in files().items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
