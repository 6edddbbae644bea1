"""L-BFGS from Rprop's own steps as documented, on one float64 vector, in NumPy.

The direction is that of the two loops of Liu and Nocedal (1989), the first steps are those of
`reference_momentum`, and what is to be done next stands in loops, not in counters. Here moves
are added to the weights.
"""

import numpy as np

from helpers import reference, reference_momentum

STEPS = 8  # of Rprop at first
TRIES, TRIES_IF_SHRUNK, TRIES_APART, STEEP = 4, 2, 16, 0.9
CAP, LEAST_CAP, LARGEST_CAP = 10.0, 1.25, 1e15
GROWTH, GROWTH_WITHOUT_PAIRS, STEEPER, MOST_STRETCH, LARGE = 4.0, 16.0, 2.0, 1e15, 1e-3
FIELDS = "countdown", "num_tries", "num_pairs", "num_failures"


class Finished(Exception):  # noqa: N818 - it is no error
    """So many gradients have been taken."""


class Rprop:
    """With momentum: a weight at a time."""

    def __init__(self, x, lower, upper):
        limits = {"min_step_size": 2.0**-478, "max_step_size": 2.0**31}
        self.factor = reference_momentum.Factor()
        self.weights = []
        for value in x:
            first = reference_momentum.first_step_size(value, x, lower, upper)
            own = reference.Hyperparameters.of_type(np.float64, first, **limits)
            self.weights.append(reference_momentum.Weight(value, own, lower, upper, 0.8))

    def move(self, x, g):
        coefficient = self.factor.coefficient(g, [weight.average for weight in self.weights])
        for weight, value in zip(self.weights, x, strict=True):
            weight.value = value
        both = zip(self.weights, g, strict=True)
        return np.array([weight.update("irprop_minus", own, coefficient) for weight, own in both])

    def forget(self, times, distances):
        """The average, and the signs of those of whose step sizes a part is kept."""
        for weight, part, distance in zip(self.weights, times, distances, strict=True):
            weight.average = 0.0
            if part > 0:
                size = min(weight.step_size, 100 * distance) if distance > 0 else weight.step_size
                weight.step_size, weight.sign = max(size * part, 2.0**-478), 0

    def inside(self, x, path):
        """The move along a path, cut at the bounds."""
        move = path.copy()
        for i, (weight, value) in enumerate(zip(self.weights, x, strict=True)):
            weight.value = value
            if not weight.lower <= value + path[i] <= weight.upper:
                move[i] = weight.cut(path[i])
        return move


def back(tries, is_cut):
    """To a part of a move of Rprop's; at last beyond where it began."""
    return -1 if tries == 8 else 4 if 8 < tries < 40 else 0.9 if is_cut and tries == 1 else 0.1


def is_curved(s, y):
    return s @ y > 0


def secants(pairs):
    a, b = (sum(abs(pair[part]) for pair in pairs) for part in (0, 1))
    return np.where(b > 0, a / np.where(b > 0, b, 1), 0)


def direction(g, pairs, diagonal, free):
    """Minus the inverse Hessian of free weights times the gradient; None without pairs."""
    pairs = [(np.where(free, s, 0), np.where(free, y, 0)) for s, y in pairs]
    pairs = [(s, y) for s, y in pairs if is_curved(s, y)]
    if not pairs:
        return None
    q, alphas = np.where(free, g, 0), []
    for s, y in reversed(pairs):
        alphas.append(s @ q / (s @ y))
        q = q - alphas[-1] * y
    s, y = pairs[-1]
    r = (s @ y) / (y @ (diagonal * y)) * diagonal * q
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r = r + s * (alpha - y @ r / (s @ y))
    return np.where(free, -r, 0)


def run(gradient, x, evaluations, lower=-np.inf, upper=np.inf, memory_size=10):
    """What there is where each gradient is taken.

    Args:
      gradient: a function of the weights.
      x: the weights at the start.
      evaluations: the number of gradients.
      lower: the bound below all weights.
      upper: the bound above them.
      memory_size: how many pairs are kept.

    Returns:
      A dictionary of arrays with a row for each gradient: the weights, Rprop's step sizes and
      signs, the distance, and by the names of the state's fields the counts with which they have
      been reached.
    """
    names = "weights", "step_sizes", "signs", "distance", *FIELDS
    trace, pairs = [], []
    rprop, failures = Rprop(x, lower, upper), 0
    distance = np.full(len(x), np.inf)

    def take(countdown, tries=0):
        if len(trace) == evaluations:
            raise Finished
        sizes, signs = zip(*((own.step_size, own.sign) for own in rprop.weights), strict=True)
        trace.append((x + step, sizes, signs, distance, countdown, tries, len(pairs), failures))
        if len(pairs) == memory_size:  # the oldest is written over, whatever comes of it
            del pairs[0]
        return np.asarray(gradient(x + step))

    def remember(h):
        if is_curved(move, h - g):
            pairs.append((move, h - g))

    countdown, first = STEPS + 1, 0.0
    # A move is what pairs are made of: not of the rounding by which a weight misses its bound.
    step = move = g = 0 * x
    tries = 0
    unit = float(np.finfo(float).eps)  # a cut move may miss a bound by so much of it

    def free_of_bounds(x, g):
        least, most = lower + unit * abs(lower), upper - unit * abs(upper)
        return ~(((x <= least) & (g > 0)) | ((x >= most) & (g < 0)))

    def is_cut():
        return not free_of_bounds(x + step, -move).all()

    try:
        while True:
            # 1. Rprop, from wherever the last move ends.
            while True:
                h = take(countdown, tries)
                if not np.isfinite(h).all():
                    tries += 1
                    moved, is_bad = move != 0, ~np.isfinite(h)
                    blamed = moved & is_bad if (moved & is_bad).any() else moved
                    rprop.forget(np.where(blamed, 0.25, 0), distance)
                    stays = move if tries < TRIES_APART else 0 * move
                    part = back(tries, is_cut())
                    step = move = rprop.inside(x, np.where(blamed, part * move, stays))
                    continue
                tries = 0
                remember(h)
                first = first or (h.any() and 2.0 ** np.frexp(abs(h).max())[1])
                x, g, countdown = x + step, h, countdown - 1
                if countdown == 0:
                    break
                step = rprop.move(x, g)
                move = np.where(free_of_bounds(x, g), step, 0)
            # 2. L-BFGS.
            diagonal = secants(pairs) if pairs else 0 * x
            sizes = np.array([float(weight.step_size) for weight in rprop.weights])
            cap, stretch, gives_up = CAP, 1.0, False
            is_short = is_steeper = held_back = False  # the last move
            while not gives_up:
                free = free_of_bounds(x, g)
                d = direction(g, pairs, diagonal, free)
                growth = GROWTH_WITHOUT_PAIRS if d is None else 1.0 if is_steeper else GROWTH
                cap = min(growth * cap, LARGEST_CAP) if held_back else cap
                stretch = growth * stretch if is_short else 1.0
                if d is not None:
                    follows = np.isfinite(d) & ((diagonal > 0) | (g == 0))
                    faded = np.where(distance < np.inf, 0.01 * distance, 0)
                    distance = np.where(follows & (not is_short), abs(d), np.inf)
                    distance = np.maximum(np.maximum(distance, abs(move)), faded)
                    distance = np.where(free, distance, 0)
                    follows &= free
                else:
                    d, follows = 0 * x, np.zeros(len(x), bool)
                most = np.max(np.where(follows, abs(d) / sizes, 1))
                d = np.where(follows, d, -np.sign(g) * sizes)
                room = cap / (most if most > 0 else 1)
                step, tries = rprop.inside(x, min(stretch, room) * d), 0
                move = np.where(free, step, 0)
                while True:
                    h = take(0, tries)
                    before, after, finite = g @ move, h @ move, np.isfinite(h).all()
                    is_short = finite and tries == 0 and after < -STEEP * abs(before)
                    gives_up = finite and (before >= 0 or (is_short and stretch >= MOST_STRETCH))
                    if finite and not gives_up and not after > STEEP * abs(before):
                        break
                    portion = 0.9 if not finite and tries == 0 and is_cut() else 0.1
                    if finite and before < after:
                        portion = np.clip(before / (before - after), 0.1, 0.5)
                    step, tries = rprop.inside(x, portion * move), tries + 1
                    move = np.where(free, step, 0)
                    few = finite and cap < CAP and abs(h).max() > LARGE * first
                    gives_up |= tries >= (TRIES_IF_SHRUNK if few else TRIES)
                    if gives_up:
                        break
                if gives_up:
                    break
                held_back = room < stretch and tries == 0 and after < 0
                is_steeper = after < STEEPER * before
                cap = max(cap / 2, LEAST_CAP) if tries > 0 else cap
                remember(h)
                x, g = x + step, h
            # 3. Its move is not done; from the end of what is left of it, Rprop for longer.
            countdown = 1 + STEPS * 2 ** (1 + failures)
            pairs.clear()
            way = np.max(np.where(distance > 0, diagonal * abs(h) / sizes, 0))
            part = min(100 * way, 1.0) if abs(h).max() <= 2**12 * unit * first else 1.0
            rprop.forget(np.full(len(x), part), distance)
            tries, failures, distance = 0, failures + 1, np.full(len(x), np.inf)
    except Finished:
        return dict(zip(names, map(np.array, zip(*trace, strict=True)), strict=True))
