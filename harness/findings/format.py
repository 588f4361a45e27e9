"""Numbers and names as a reader meets them."""

from collections.abc import Sequence

from harness.results.run import Estimate


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


def with_spread(about: Estimate, unit: str = "", sign: bool = True) -> str:
    """The mean with its unit and interval: ``−2.58 logits (95 % interval −2.99 to −2.16)``; a plus is written where the
    number is a difference (`sign`)."""
    mean = signed(about.mean) if sign else number(about.mean)
    if about.kind == "one prompt":
        return f"{mean}{unit} (one prompt, so no spread)"
    if about.kind == "standard error":
        return f"{mean} ± {about.high - about.mean:.2g}{unit} (standard error)"
    return f"{mean}{unit} ({about.kind} {signed(about.low)} to {signed(about.high)})"


def mean_with_spread(about: Estimate) -> str:
    """The mean and its interval, where unit and kind of interval were said before."""
    if about.kind in ("one prompt", "standard error"):
        return signed(about.mean) + ("" if about.kind == "one prompt" else f" ± {about.high - about.mean:.2g}")
    return f"{signed(about.mean)} ({signed(about.low)} to {signed(about.high)})"
