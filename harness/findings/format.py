"""Numbers and names as a reader meets them."""

from collections.abc import Sequence


def count(n: int, noun: str) -> str:
    """``1 head``, ``2 heads``."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def number(value: float) -> str:
    """Three significant digits, without an exponent where a reader does not need one; minus as a minus."""
    if value < 0:
        return f"−{number(-value)}"
    if value == 0 or 1000 <= abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:#.3g}".rstrip(".") if 1e-4 <= abs(value) < 1000 else f"{value:.2e}"


def chance(p: float) -> str:
    """A p-value with its sign: ``p < 0.001`` where it is smaller than that."""
    return "p < 0.001" if p < 0.001 else f"p {p:.2g}"


def decimals(value: float) -> str:
    """A correlation to two decimals, minus as a minus."""
    return f"{value:.2f}".replace("-", "−")


def signed(value: float) -> str:
    """A number with its sign, minus as a minus."""
    return ("+" if value > 0 else "−" if value < 0 else "") + number(abs(value))


def listed(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts)


def named(part: dict | str | None) -> str:
    """The name in a part of a spec."""
    return str(part.get("name", "unnamed")) if isinstance(part, dict) else str(part or "unnamed")
