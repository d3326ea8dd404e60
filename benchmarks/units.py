"""How figures are written: three digits, and the unit that suits the median."""

from __future__ import annotations

from benchmarks.figures import Figure

# The last entry that is not above the median is taken.
_SCALES = {
    "s": [(1e-9, "ns"), (1e-6, "µs"), (1e-3, "ms"), (1.0, "s")],
    "/s": [(1.0, "/s"), (1e3, "k/s"), (1e6, "M/s")],
    "B": [(1.0, "B"), (1e3, "kB"), (1e6, "MB")],
    "x": [(1.0, "x")],
    "": [(1.0, "")],
    "%": [(0.01, "%")],
}


def write(figure: Figure | None, unit: str) -> str:
    """Return ``1.52 µs (1.41..2.7)``, or a dash for what was not measured."""
    if figure is None:
        return "-"
    factor, name = _scale(figure.median, unit)
    median, least, most = (
        _digits(value / factor) for value in (figure.median, figure.least, figure.most)
    )
    return f"{_joined(median, name)} ({least}..{most})"


def write_value(value: float, unit: str) -> str:
    """Return ``1.52 µs``."""
    factor, name = _scale(value, unit)
    return _joined(_digits(value / factor), name)


def write_count(count: float) -> str:
    """Return ``10k``, for where there is little room."""
    for factor, name in ((1e6, "M"), (1e3, "k")):
        if count >= factor:
            return f"{_digits(count / factor)}{name}"
    return _digits(count)


def _joined(number: str, name: str) -> str:
    return f"{number} {name}".rstrip()


def _scale(value: float, unit: str) -> tuple[float, str]:
    scales = _SCALES[unit]
    return next((one for one in reversed(scales) if abs(value) >= one[0]), scales[0])


def _digits(number: float) -> str:
    """Return three significant digits; never an exponent."""
    if abs(number) >= 100:  # noqa: PLR2004 - three digits before the point
        return f"{number:,.0f}"
    return f"{number:.3g}" if abs(number) >= 1e-3 else f"{number:.0f}"  # noqa: PLR2004
