"""Format numbers and names for readers."""

from collections.abc import Sequence

from harness.results.run import Estimate


def count(n: int, noun: str) -> str:
    """Return ``1 head``, ``2 heads``."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def number(value: float) -> str:
    """Write three significant digits, without an exponent from 1e-4 to 1e6; minus as a minus sign."""
    if value < 0:
        return f"−{number(-value)}"
    if value == 0 or 1000 <= abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:#.3g}".rstrip(".") if 1e-4 <= abs(value) < 1000 else f"{value:.2e}"


def rounded(value: float) -> str:
    """Write two significant digits, for a headline; minus as a minus sign."""
    if value < 0:
        return f"−{rounded(-value)}"
    if 1e-3 <= value < 10:
        return f"{value:#.2g}".rstrip(".")
    return f"{value:.0f}" if value == 0 or 10 <= value < 1e6 else f"{value:.1e}"


def chance(p: float) -> str:
    """Write a p-value: ``p < 0.001`` where it is smaller than that."""
    return "p < 0.001" if p < 0.001 else f"p {p:.2g}"


def decimals(value: float) -> str:
    """Write a correlation to two decimals, minus as a minus sign."""
    return f"{value:.2f}".replace("-", "−")


def signed(value: float) -> str:
    """Write a number with its sign, minus as a minus sign."""
    return ("+" if value > 0 else "−" if value < 0 else "") + number(abs(value))


def listed(parts: Sequence[str]) -> str:
    """Join to ``a, b and c``."""
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts)


def named(part: dict | str | None) -> str:
    """Return the name in a part of a spec."""
    return str(part.get("name", "unnamed")) if isinstance(part, dict) else str(part or "unnamed")


def with_spread(about: Estimate, unit: str = "", sign: bool = True) -> str:
    """Write the mean with its unit and interval: ``−2.58 logits (95 % interval −2.99 to −2.16)``; with `sign`, a plus
    too (for differences)."""
    mean = signed(about.mean) if sign else number(about.mean)
    if about.kind == "one prompt":
        return f"{mean}{unit} (one prompt, so no spread)"
    if about.kind == "standard error":
        return f"{mean} ± {about.high - about.mean:.2g}{unit} (standard error)"
    return f"{mean}{unit} ({about.kind} {signed(about.low)} to {signed(about.high)})"


def mean_with_spread(about: Estimate) -> str:
    """Write the mean and its interval, where unit and kind of interval are known from the context."""
    if about.kind in ("one prompt", "standard error"):
        return signed(about.mean) + ("" if about.kind == "one prompt" else f" ± {about.high - about.mean:.2g}")
    return f"{signed(about.mean)} ({signed(about.low)} to {signed(about.high)})"
