"""Figures and their goals: what was measured, what it was to be, and whether it is."""
import dataclasses
import statistics

import stand


@dataclasses.dataclass
class Figure:
    """One line of the table. `value` is held against `bound`; a figure without a bound is said for its own sake."""
    what: str
    goal: str
    reached: str
    value: float
    bound: float | None = None
    is_at_most: bool = False

    def is_met(self):
        """None: there was no goal."""
        if self.bound is None:
            return None
        return self.value <= self.bound if self.is_at_most else self.value >= self.bound

    def cells(self):
        """For the table."""
        verdict = {None: "", True: "yes", False: "no"}[self.is_met()]
        return (self.what, self.goal, self.reached, number(self.value), verdict)


HEADING = ("figure", "goal", "reached", "ratio", "met")


def number(value):
    """With as many digits as mean anything."""
    if value == float("inf"):
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def median(runs, key="ok_rate"):
    """Of the rounds of one case."""
    return statistics.median(run[key] for run in runs)


def rate_against(what, runs, base_runs, *, base, bound=None, key="ok_rate", unit="calls/s"):
    """How many times the yardstick's rate, as the median of the rounds' ratios."""
    ratio = stand.median_ratio([run[key] for run in runs], [run[key] for run in base_runs])
    goal = f"at least {bound:g} x {base}" if bound else f"against {base}"
    return Figure(what, goal, f"{median(runs, key):,.0f} against {median(base_runs, key):,.0f} {unit}", ratio, bound)


def slope_per_minute(samples):
    """Least squares over (seconds, value)."""
    mean_x = statistics.mean(x for x, _ in samples)
    mean_y = statistics.mean(y for _, y in samples)
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    return 60 * sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread if spread else 0.0
