"""What happened to one user as its clients saw it, and whether that can have been one thing after the other: a check for
linearizability after Wing and Gong (1993), for a register that holds a name until it is deleted."""
import dataclasses


@dataclasses.dataclass
class Step:
    """One call's part in a user's history. `begun` and `ended`: the call took effect somewhere between them."""
    begun: int
    ended: int
    kind: str  # read, holds, rename, delete
    argument: str | None  # the name that was asked for, or given
    result: object  # read: the name, None: absent. The others: whether it was found


def apply(name, step):
    """The name after the step, and whether the step could have had this result."""
    if step.kind == "read":
        return name, step.result == name
    if step.kind == "holds":
        return name, step.result == (name == step.argument)
    is_found = name is not None
    if step.result != is_found or not is_found:
        return name, step.result == is_found
    return (step.argument if step.kind == "rename" else None), True


def _next_steps(steps, done):
    """Numbers of the steps that may come next: begun before any other that is left has ended."""
    left = [number for number in range(len(steps)) if not done >> number & 1]
    first_end = min(steps[number].ended for number in left)
    return [number for number in left if steps[number].begun <= first_end]


def is_linearizable(name, steps):
    """Whether some order of the steps explains every result, when the user had `name` (None: was not there) before them."""
    steps = sorted(steps, key=lambda step: step.begun)
    seen = set()
    pending = [(0, name)]
    everything = (1 << len(steps)) - 1
    while pending:
        done, held = pending.pop()
        if done == everything:
            return True
        if (done, held) in seen:
            continue
        seen.add((done, held))
        for number in _next_steps(steps, done):
            after, is_possible = apply(held, steps[number])
            if is_possible:
                pending.append((done | 1 << number, after))
    return False
