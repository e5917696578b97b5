"""The table at the end of `machine_check.py`."""

from collections.abc import Sequence
from typing import Any

COLUMNS = (
    ("first step s", "first_step_seconds", "{:.1f}"),
    ("tokens/s", "tokens_per_second", "{:,.0f}"),
    ("least", "least", "{:,.0f}"),
    ("greatest", "greatest", "{:,.0f}"),
    ("of rate", "matrix_rate_fraction", "{:.2f}"),
    ("busy", "gpu_busy_fraction", "{:.2f}"),
    ("launches", "launches_per_step", "{:,.0f}"),
    ("kernels", "kernels_per_step", "{:,.0f}"),
    ("waits", "waits_per_step", "{:.1f}"),
    ("GiB", "peak_gib", "{:.2f}"),
    ("optimizer ms", "optimizer_milliseconds", "{:.2f}"),
)
OURS = ("small", "compiled, adamw, cold")


def print_table(lines: Sequence[dict[str, Any]]) -> None:
    """Speeds, ratios, checks and failures of one check."""
    measured = merged(lines)
    print("\n" + f"{'':<52}" + "".join(f"{title:>{_width(title)}}" for title, _, _ in COLUMNS))
    for (section, name), facts in measured.items():
        if "tokens_per_second" in facts or "first_step_seconds" in facts:
            print(f"{f'{section}: {name}'[:51]:<52}" + "".join(_cell(facts, *column) for column in COLUMNS))
    _print_ratios(measured)
    passed = [name for (_, name), facts in measured.items() if facts.get("ok")]
    equal = [f"{name} {facts['equal']}" for (_, name), facts in measured.items() if "equal" in facts]
    if passed:
        print(f"\nworked: {', '.join(passed)}")
    if equal:
        print(f"killed and resumed, equal bit for bit: {', '.join(equal)}")
    for title, key in (("FAILED", "failed"), ("left out", "left_out")):
        found = [line for line in lines if key in line]
        if found:
            print(f"\n{title}:")
        for line in found:
            print(f"  {line['section']}: {line['name']}: {str(line[key])[:200]}")
    print(flush=True)


def merged(lines: Sequence[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """All facts by section and name, the later lines over the earlier."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        found.setdefault((line["section"], line["name"]), {}).update(line)
    return found


def _print_ratios(measured: dict[tuple[str, str], dict[str, Any]]) -> None:
    ours = measured.get(OURS, {}).get("tokens_per_second")
    others = {name: facts["tokens_per_second"] for (section, name), facts in measured.items()
              if section == "plain" and "tokens_per_second" in facts}  # fmt: skip
    for name, rate in others.items() if ours else ():
        low, high = ours["least"] / rate["greatest"], ours["greatest"] / rate["least"]
        print(
            f"small, compiled: {ours['median'] / rate['median']:.2f} times as fast ({low:.2f} to {high:.2f}) as {name}"
        )


def _width(title: str) -> int:
    return max(11, len(title) + 2)


def _cell(facts: dict[str, Any], title: str, key: str, form: str) -> str:
    rates = facts.get("tokens_per_second", {})
    value = rates.get(key) if key in ("least", "greatest") else facts.get(key)
    if key == "tokens_per_second":
        value = rates.get("median")
    return f"{'' if value is None else form.format(value):>{_width(title)}}"
