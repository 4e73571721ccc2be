"""Figures as a picture: a bar for each case, beside a line where both sides are alike."""

from collections.abc import Sequence
from html import escape

from tests.bench.measuring import Figure

_WIDTH, _ROW, _LEFT, _RIGHT = 860, 34, 270, 220
_STYLE = (
    "text{font:13px sans-serif;fill:#222} .note{fill:#777} .bar{fill:#4477aa} .even{stroke:#222;stroke-dasharray:3 3}"
)


def svg(
    figures: Sequence[Figure],
    title: str = "Through the proxy, against the same straight",
    even_is: str = "1 = straight",
) -> str:
    """Draw how many times its baseline each figure through the proxy is."""
    widest = max(1.0, *(figure.ratio for figure in figures))
    scale = (_WIDTH - _LEFT - _RIGHT) / widest
    height = _ROW * (len(figures) + 1)
    even_at = _LEFT + scale
    rows = "".join(_row(number, figure, scale) for number, figure in enumerate(figures))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" role="img">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>{rows}'
        f'<line class="even" x1="{even_at:.1f}" x2="{even_at:.1f}" y1="4" y2="{height - 22}"/>'
        f'<text class="note" x="{even_at:.1f}" y="{height - 8}" text-anchor="middle">{escape(even_is)}</text></svg>\n'
    )


def _row(number: int, figure: Figure, scale: float) -> str:
    top, length = number * _ROW, scale * figure.ratio
    numbers = f"{figure.ratio:.2f} ({figure.baseline:.3g} → {figure.through:.3g} {figure.unit})"
    return (
        f'<text x="{_LEFT - 10}" y="{top + 21}" text-anchor="end">{escape(figure.name)}</text>'
        f'<rect class="bar" x="{_LEFT}" y="{top + 8}" width="{length:.1f}" height="18"/>'
        f'<text x="{_LEFT + length + 6:.1f}" y="{top + 21}">{escape(numbers)}</text>'
    )
