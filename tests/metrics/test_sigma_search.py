"""Adaptive noising: the search of Algorithm 1 on objectives with known answers."""

import pytest
import torch

import tutorial_lib as tl
from tests.closed_forms import normal, quadratic, symmetric, tanh_mlp

NET = tanh_mlp()


def search(objective, start=0.5, **keywords):
    """Sigmas in the order in which they were evaluated, and the result."""
    seen = []

    def recorded(sigma):
        seen.append(sigma)
        return objective(sigma)

    x = torch.full((1, 6), start, dtype=torch.float64)
    return seen, tl.adaptive_noise(NET, x, 0, objective=recorded, **keywords)


def naive(objective, start, max_iterations=20, alpha=0.1, decay=0.9, max_stop=3):
    """Algorithm 1 for one picture, line by line, with its evaluated sigmas."""
    seen = [start]
    sigma, value = start, objective(start)
    best, best_value, s = sigma, value, 0
    for _ in range(max_iterations):
        new = abs(sigma + alpha)
        seen.append(new)
        new_value = objective(new)
        if new_value > value:
            new = abs(sigma - alpha)
            seen.append(new)
            new_value = objective(new)
        if new_value > value:
            if not s <= max_stop:
                break
            s, alpha = s + 1, alpha * decay
        else:
            s = 0
            if new_value < best_value:
                best, best_value = new, new_value
        sigma, value = new, new_value
    return seen, best, best_value


def rough(sigma):
    """A deterministic function without structure, so that worse moves come in rows."""
    return (round(float(sigma) * 1e9) * 2654435761 % 1000003) / 1000003 + float(sigma) ** 2


OBJECTIVES = {
    "quadratic": lambda s: (s - 0.31) ** 2,
    "vee": lambda s: abs(s - 0.25),
    "rising": lambda s: s,
    "falling": lambda s: -s,
    "flat": lambda s: 0 * s,
    "rough": rough,
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("start", [0.0, 0.05, 0.2, 0.75])
def test_the_search_is_the_printed_algorithm(name, start):
    objective = OBJECTIVES[name]
    seen, result = search(objective, start)
    assert seen[0] == pytest.approx(start)
    wanted, best, best_value = naive(objective, seen[0])
    assert seen == pytest.approx(wanted, abs=1e-12)
    assert float(result.sigma) == pytest.approx(best) and float(result.value) == best_value
    assert [float(s) for s, _ in result.history] == seen
    assert all(s >= 0 for s in seen)


def test_the_search_starts_at_the_mean_of_the_absolute_values():
    x = torch.tensor([[-1.0, 2.0, 0.0, -3.0]])
    result = tl.adaptive_noise(lambda z: z, x, 0, objective=lambda s: s, max_iterations=1)
    assert float(result.history[0][0]) == pytest.approx(1.5)


@pytest.mark.parametrize("max_stop, moves", [(3, 5), (2, 4), (0, 2)])
def test_the_search_ends_at_the_fifth_worse_move_in_a_row_the_program_at_the_fourth(
    max_stop, moves
):
    calls = iter(range(1000))
    seen, result = search(lambda s: float(next(calls)), start=5.0, max_stop=max_stop)
    assert len(seen) == 1 + 2 * moves and float(result.sigma) == 5.0
    steps = [0.1 * 0.9**k for k in range(moves)]
    here, wanted = 5.0, [5.0]
    for step in steps:
        wanted += [here + step, here - step]
        here -= step
    assert seen == pytest.approx(wanted)


def test_the_best_value_is_kept_when_the_search_moves_on_to_worse_ones():
    seen, result = search(lambda s: (s - 0.5) ** 2, start=0.5)
    assert float(result.sigma) == 0.5 and float(result.value) == 0 and len(seen) > 10


def test_sigma_zero_is_asked_of_an_objective_and_never_of_a_metric():
    # Steps of 0.25 down from 0.5 meet 0 exactly.
    seen, result = search(lambda s: s, start=0.5, learning_rate=0.25)
    assert 0.0 in seen and float(result.sigma) == 0.0
    asked, x = [], torch.full((1, 6), 0.5, dtype=torch.float64)

    def size(maps):
        asked.append(maps)
        return maps.abs().flatten(1).sum(1)

    own = dict(learning_rate=0.25, max_stop=20)
    result = tl.adaptive_noise(NET, x, 0, metric=size, roots=4, common_noise=True, **own)
    zero = [v for s, v in result.history if float(s) == 0]
    assert zero and all(float(v) == torch.inf for v in zero)
    assert all(bool(maps.any()) for maps in asked) and float(result.sigma) > 0


def test_a_metric_is_asked_about_the_smooth_taylor_map():
    matrix, x = symmetric(4), normal(1, 4) / 2

    def size(maps):
        return maps.square().flatten(1).sum(1)

    result = tl.adaptive_noise(
        quadratic(matrix), x, 0, metric=size, roots=6, max_iterations=2, common_noise=True, seed=3
    )
    for sigma, value in result.history:
        a = tl.smooth_taylor(quadratic(matrix), x, 0, sigma=float(sigma), roots=6, seed=3)
        assert float(value) == pytest.approx(float(size(a)), rel=1e-9)


@pytest.mark.slow
def test_common_noise_makes_the_objective_a_function_of_sigma_and_fresh_noise_does_not():
    x = torch.full((1, 6), 0.3, dtype=torch.float64)

    def size(maps):
        return maps.abs().flatten(1).sum(1)

    values = {}
    for common in (True, False):
        result = tl.adaptive_noise(NET, x, 0, metric=size, roots=3, common_noise=common)
        seen = {}
        for sigma, value in result.history:
            seen.setdefault(round(float(sigma), 9), set()).add(round(float(value), 12))
        values[common] = max(len(v) for v in seen.values())
    assert values[True] == 1 and values[False] > 1


def test_fresh_noise_is_fresh_at_every_iteration_and_on_both_sides():
    # For a linear model a map is sigma times a function of the draws alone.
    linear, seen = torch.nn.Linear(6, 1, bias=False).double().eval(), []

    def worse_and_worse(maps):
        seen.append(tuple((maps / maps[0, 0]).round(decimals=6).flatten().tolist()))
        return torch.tensor([float(len(seen))])

    x = torch.full((1, 6), 0.5, dtype=torch.float64)
    tl.adaptive_noise(linear, x, 0, metric=worse_and_worse, roots=2, max_iterations=4)
    assert len(set(seen)) == len(seen) == 1 + 2 * 4


def test_an_objective_cannot_change_the_search_by_writing_into_its_sigmas():
    x = torch.full((2, 6), 0.5, dtype=torch.float64)
    plain = tl.adaptive_noise(NET, x, 0, objective=lambda s: s**2)
    rude = tl.adaptive_noise(NET, x, 0, objective=lambda s: s.requires_grad_().mul(s))
    rude_still = tl.adaptive_noise(NET, x, 0, objective=lambda s: s.clone().pow_(2) + 0 * s.zero_())
    for other in (rude, rude_still):
        assert torch.equal(plain.sigma, other.sigma) and not other.sigma.requires_grad


def test_an_interrupt_in_the_middle_of_an_iteration_keeps_what_one_picture_found():
    x, calls = torch.full((2, 6), 0.5, dtype=torch.float64), []

    def objective(sigma):
        calls.append(1)
        if len(calls) == 3:  # the first picture steps back, the second has just improved
            raise KeyboardInterrupt
        return torch.stack([sigma[0], -sigma[1]])

    with pytest.warns(RuntimeWarning, match="interrupted after 2"):
        result = tl.adaptive_noise(NET, x, 0, objective=objective)
    assert result.value.tolist() == pytest.approx([0.5, -0.6])


@pytest.mark.slow
def test_a_batch_gives_the_searches_of_its_pictures_one_at_a_time():
    x = normal(4, 6) * torch.tensor([[0.1], [0.5], [1.0], [2.0]]).double()
    target = torch.tensor([0, 1, 2, 0])

    def size(maps):
        return (maps.abs().flatten(1).sum(1) - 0.2).abs()

    keywords = dict(metric=size, roots=3, max_iterations=12, max_stop=1)
    both = tl.adaptive_noise(NET, x, target, **keywords)
    lengths = set()
    for i in range(4):
        one = tl.adaptive_noise(NET, x[i : i + 1], int(target[i]), **keywords)
        own = [(s[i], v[i]) for s, v in both.history if not s[i].isnan()]
        assert len(own) == len(one.history)
        for (s, v), (s_one, v_one) in zip(own, one.history, strict=True):
            assert float(s) == float(s_one) and float(v) == pytest.approx(float(v_one), rel=1e-9)
        assert float(both.sigma[i]) == float(one.sigma)
        lengths.add(len(own))
    assert len(lengths) > 1  # the searches did differ in length


def test_an_objective_for_a_batch_gets_and_gives_one_number_for_each_picture():
    place = torch.tensor([0.2, 0.6, 1.0]).double()
    x = torch.full((3, 6), 0.5, dtype=torch.float64)
    result = tl.adaptive_noise(NET, x, 0, objective=lambda s: (s - place) ** 2)
    assert torch.allclose(result.sigma, place, atol=0.11)
    for i in range(3):
        _, one = search(lambda s, i=i: (s - float(place[i])) ** 2)
        assert float(result.sigma[i]) == pytest.approx(float(one.sigma))


def test_an_objective_that_is_nan_is_refused_with_its_sigma():
    with pytest.raises(ValueError, match=r"objective: it is NaN at sigma = \[0\.6"):
        search(lambda s: 1.0 if s < 0.55 else float("nan"))


def test_an_interrupt_ends_the_search_with_what_was_found():
    calls = []

    def objective(sigma):
        calls.append(sigma)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return abs(sigma - 1)

    with pytest.warns(RuntimeWarning, match="interrupted after 7 evaluations"):
        _, result = search(objective)
    assert len(result.history) == 7 and float(result.sigma) == pytest.approx(1.0, abs=0.11)


def test_an_interrupt_before_anything_was_found_is_passed_on():
    def objective(sigma):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(objective)


class Pictures(torch.nn.Module):
    """A smooth score of pictures, with bounds of its own."""

    bounds = (-3.0, 3.0)

    def forward(self, x):
        score = 9 + torch.tanh(x * x.roll(1, -1)).flatten(1).sum(1, keepdim=True) / 50
        return torch.cat([score, -score], 1)


@pytest.mark.parametrize("objective", ["aupc", "autvc"])
@pytest.mark.slow
def test_a_named_objective_is_that_measure_of_the_smooth_taylor_map(objective):
    model, x = Pictures().eval(), normal(2, 1, 150, 150).clamp(-3, 3)
    own = dict(objective=objective, roots=3, max_iterations=1, common_noise=True, seed=5)
    result = tl.adaptive_noise(model, x, 0, **own)
    for sigma, value in result.history:
        for i in range(2):
            if sigma[i].isnan():
                continue
            one = x[i : i + 1]
            a = tl.smooth_taylor(model, one, 0, sigma=float(sigma[i]), roots=3, seed=5)
            if objective == "aupc":
                area = tl.metrics.aupc(model, one, 0, tl.heatmap(a), bounds=(-3.0, 3.0), seed=5)
            else:
                area = tl.metrics.autvc(tl.heatmap(a))
            assert float(value[i]) == pytest.approx(float(area), rel=1e-6)


X = torch.full((2, 6), 0.5, dtype=torch.float64)
CASES = {
    "objective": [
        dict(objective="auc"),
        dict(objective=3),
        dict(objective=None),
        dict(objective=lambda s: None),
        dict(objective=lambda s: "good"),
        dict(objective=lambda s: s[:1]),
        dict(objective=lambda s: s + 1j),
    ],
    "bounds": [dict(objective="aupc"), {}, dict(bounds=(1, 0), objective="aupc")],
    "attribution": [dict(objective="autvc")],  # of pictures only
    "metric": [
        dict(metric=lambda maps: maps.sum()),
        dict(metric="autvc"),
        dict(metric=lambda maps: None),
        dict(metric=lambda maps: maps.flatten(1).sum(1), objective=lambda s: s),
    ],
    "seed": [dict(seed=-1), dict(seed="a")],
    "batch_size": [dict(batch_size=0)],
    "roots": [dict(metric=lambda m: m.flatten(1).sum(1), roots=0)],
    "max_iterations": [dict(max_iterations=0), dict(max_iterations=2.0)],
    "learning_rate": [dict(learning_rate=0), dict(learning_rate=-0.1), dict(learning_rate="a")],
    "decay": [dict(decay=0), dict(decay=1.5), dict(decay=float("nan"))],
    "max_stop": [dict(max_stop=-1), dict(max_stop=True)],
    "target": [dict(target=9, metric=lambda m: m.flatten(1).sum(1))],
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_by_an_error_that_names_the_argument(name):
    for case in CASES[name]:
        free = name in ("objective", "bounds", "attribution") or "metric" in case
        given = dict(case) if free else {"objective": lambda s: s, **case}
        target = given.pop("target", 0)
        with pytest.raises((ValueError, TypeError), match=rf"(^|\W){name}\W"):
            tl.adaptive_noise(NET, X, target, **given)
