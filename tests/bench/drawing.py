"""Figures as a picture: a bar for each case, beside a line where both sides are alike."""

from collections.abc import Sequence
from html import escape

from tests.bench.measuring import Figure

_WIDTH, _ROW, _LEFT, _RIGHT = 800, 34, 190, 220
_STYLE = (
    "text{font:13px sans-serif;fill:#222} .note{fill:#777} .bar{fill:#4477aa} .even{stroke:#222;stroke-dasharray:3 3}"
)


def svg(figures: Sequence[Figure]) -> str:
    """Draw how many times the straight figure each one through the proxy is."""
    widest = max(1.0, *(figure.ratio for figure in figures))
    scale = (_WIDTH - _LEFT - _RIGHT) / widest
    height = _ROW * (len(figures) + 1)
    even = _LEFT + scale
    rows = "".join(_row(number, figure, scale) for number, figure in enumerate(figures))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" role="img">'
        f"<title>Through the proxy, against the same straight</title><style>{_STYLE}</style>"
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>{rows}'
        f'<line class="even" x1="{even:.1f}" x2="{even:.1f}" y1="4" y2="{height - 22}"/>'
        f'<text class="note" x="{even:.1f}" y="{height - 8}" text-anchor="middle">1 = straight</text></svg>\n'
    )


def _row(number: int, figure: Figure, scale: float) -> str:
    top, length = number * _ROW, scale * figure.ratio
    numbers = f"{figure.ratio:.2f} ({figure.baseline:.3g} → {figure.through:.3g} {figure.unit})"
    return (
        f'<text x="{_LEFT - 10}" y="{top + 21}" text-anchor="end">{escape(figure.name)}</text>'
        f'<rect class="bar" x="{_LEFT}" y="{top + 8}" width="{length:.1f}" height="18"/>'
        f'<text x="{_LEFT + length + 6:.1f}" y="{top + 21}">{escape(numbers)}</text>'
    )
