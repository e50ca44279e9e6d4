"""Expected gradients, Guided IG, IDGI and weighted paths against closed forms and slow loops."""

import math
from functools import partial

import pytest
import torch

import tutorial_lib as tl
from tests.averaging.test_methods import close
from tests.averaging.test_smoothing import grad, noise, within
from tests.closed_forms import linear, normal, quadratic, symmetric, tanh_mlp
from tutorial_lib.averaging.seeded_noise import child_seed


def product(z):
    """f(x) = x_1 x_2."""
    return z[:, :1] * z[:, 1:]


def seen_points(method, net, x, **keywords):
    """The points at which a method takes gradients of a picture, in their order."""
    points = []

    def watched(z):
        points.extend(z.detach().clone() if z.requires_grad else [])
        return net(z)

    with tl.skip_model_check():
        method(watched, x, 0, **keywords)
    return torch.stack(points)


# --- expected gradients ---


def draws(samples, count, seed=0):
    """(number of the baseline, a) of each sample, from the definition."""
    rng = torch.Generator().manual_seed(seed)
    pairs = [torch.rand(2, generator=rng, dtype=torch.float64) for _ in range(samples)]
    return [(int(u * count), float(a)) for u, a in pairs]


@pytest.mark.parametrize("samples", [1, 9])
def test_expected_gradients_are_the_naive_loop_over_the_same_draws(samples):
    net, x, b = tanh_mlp(), normal(3, 6), normal(4, 6, seed=1)
    naive = torch.zeros_like(x)
    for k, a in draws(samples, 4, seed=5):
        naive += (x - b[k]) * grad(net, b[k] + a * (x - b[k]), 1) / samples
    close(tl.expected_gradients(net, x, 1, baselines=b, samples=samples, seed=5), naive)


def test_expected_gradients_of_a_linear_model_are_the_weight_times_the_mean_difference():
    weight, x, b, n = normal(3, 5), normal(2, 5, seed=1), normal(7, 5, seed=2), 4000
    found = tl.expected_gradients(linear(weight), x, 2, baselines=b[:1])
    close(found, weight[2] * (x - b[0]))
    found = tl.expected_gradients(linear(weight), x, 2, baselines=b, samples=n)
    error = (weight[2].abs() * b.std(0, correction=0) / math.sqrt(n)).expand_as(x)
    within(found, weight[2] * (x - b.mean(0)), error)


@pytest.mark.slow
def test_expected_gradients_of_a_quadratic_form_are_the_mean_of_integrated_gradients():
    # From one baseline it is (x - b) * A (x + b) / 2, the exact half sum.
    matrix, x, b = symmetric(4), normal(2, 4, seed=1), normal(5, 4, seed=2)
    where = partial(tl.probes.random_paths, baselines=b, samples=20_000)
    found, error = tl.engine.average(quadratic(matrix), x, 0, where, standard_error=True)
    within(found, torch.stack([(x - c) * ((x + c) @ matrix) / 2 for c in b]).mean(0), error)
    assert float(error.max()) < 0.1
    ours = tl.expected_gradients(quadratic(matrix), x, 0, baselines=b, samples=20_000)
    close(ours, found)


@pytest.mark.slow
def test_expected_gradients_draw_all_baselines_alike_and_all_of_the_path():
    x, b, n = torch.ones(1, 1).double(), torch.tensor([[0.0], [-1.0], [-3.0]]).double(), 30_000
    probes = tl.probes.random_paths(x, baselines=b, samples=n)
    weights = torch.cat([block.weights.flatten() for block in probes])  # x - b
    a = 1 - (1 - probes.points().flatten()) / weights
    for difference in (1, 2, 4):
        own = a[weights == difference]
        assert len(own) == pytest.approx(n / 3, abs=4.5 * math.sqrt(n * 2 / 9))
        assert float(own.min()) >= 0 and float(own.max()) < 1
        assert float(own.mean()) == pytest.approx(0.5, abs=4.5 / math.sqrt(12 * len(own)))


def test_more_samples_begin_with_the_same_draws():
    x, b = normal(2, 6), normal(4, 6, seed=1)
    few, many = (tl.probes.random_paths(x, baselines=b, samples=n).points() for n in (5, 50))
    assert torch.equal(few, many[:5])


def test_smoothed_expected_gradients_draw_afresh_at_each_noisy_copy():
    net, x, b = tanh_mlp(), normal(2, 6), normal(2, 6, seed=1)
    naive = [
        tl.expected_gradients(net, z, 1, baselines=b, samples=4, seed=child_seed(3, k))
        for k, z in enumerate(x + 0.3 * e for e in noise(5, 6, seed=3))
    ]
    inner = partial(tl.expected_gradients, samples=4)
    found = tl.smoothgrad(net, x, 1, sigma=0.3, samples=5, method=inner, baselines=b, seed=3)
    close(found, torch.stack(naive).mean(0))


# --- path-weighted gradients ---


def weighted(model, x, weight, **keywords):
    where = partial(tl.probes.weighted_path, weight=weight, **keywords)
    return tl.engine.average(model, x, 0, where)


def test_a_path_of_weight_1_is_integrated_gradients():
    net, x = tanh_mlp(), normal(3, 6)
    options = dict(baseline=0.3, steps=9, rule="trapezoid")
    close(weighted(net, x, lambda a: 1, **options), tl.integrated_gradients(net, x, 0, **options))


def test_a_weighted_path_of_a_linear_and_a_quadratic_model_has_the_integral_of_the_weight():
    # Integrals of a^2 and of a^2 (b + a (x - b)) over [0, 1].
    weight, x, b = normal(1, 5), normal(2, 5, seed=1), normal(1, 5, seed=2)
    options = dict(baseline=b, steps=5, rule="gauss-legendre")
    found = weighted(linear(weight), x, lambda a: a**2, **options)
    close(found, weight[0] * (x - b) / 3)
    matrix = symmetric(5)
    found = weighted(quadratic(matrix), x, lambda a: a**2, **options)
    close(found, (x - b) * ((b / 3 + (x - b) / 4) @ matrix))


@pytest.mark.slow
def test_a_path_of_weight_a_is_the_mean_over_baselines_on_the_path():
    net, x, b = tanh_mlp(), normal(2, 6), normal(1, 6, seed=2)
    options = dict(steps=40, rule="gauss-legendre")
    nodes, shares = tl.probes.quadrature("gauss-legendre", 40)
    starts = [b + t * (x - b) for t in nodes]
    mean = sum(
        share * tl.integrated_gradients(net, x, 0, baseline=start, **options)
        for start, share in zip(starts, shares, strict=True)
    )
    close(weighted(net, x, lambda a: a, baseline=b, **options), mean, 1e-9)


@pytest.mark.parametrize(
    "weight, error",
    [
        (3, TypeError),
        (None, TypeError),
        (lambda a: "x", ValueError),
        (lambda a: 1j, ValueError),
        (lambda a: torch.ones(3), ValueError),
        (lambda a: float("nan"), ValueError),
    ],
)
def test_a_weight_that_is_no_number_is_refused_by_name(weight, error):
    with pytest.raises(error, match=r"^weight: expected"):
        weighted(tanh_mlp(), normal(2, 6), weight)


# --- IDGI ---


def slow_idgi(net, x, b, target, steps):
    total = torch.zeros_like(x)
    for j in range(steps):
        z, after = b + j / steps * (x - b), b + (j + 1) / steps * (x - b)
        g = grad(net, z, target)
        rise = (net(after) - net(z))[:, target].detach()
        total += g**2 * (rise / (g**2).sum(1))[:, None]
    return total


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_idgi_is_the_slow_definition_and_complete_with_any_number_of_steps(steps, batch_size):
    net, x, b = tanh_mlp(), normal(3, 6), normal(1, 6, seed=2)
    found = tl.idgi(net, x, 1, baseline=b, steps=steps, batch_size=batch_size)
    close(found, slow_idgi(net, x, b, 1, steps))
    assert float(tl.metrics.completeness_gap(net, x, 1, found, b).abs().max()) < 1e-14


def test_idgi_of_a_linear_model_shares_the_rise_by_the_squared_weights():
    weight, x, b = normal(3, 5), normal(2, 5, seed=1), normal(1, 5, seed=2)
    rise = (x - b) @ weight[2]
    wanted = rise[:, None] * weight[2] ** 2 / (weight[2] ** 2).sum()
    close(tl.idgi(linear(weight), x, 2, baseline=b, steps=3), wanted)


def test_idgi_leaves_out_the_rise_of_a_step_without_a_gradient():
    # x'Ax/2 from 0: the gradient a A x has one direction, and it is 0 in the first step alone.
    matrix, x, n = symmetric(4), normal(3, 4, seed=1), 5
    g, score = x @ matrix, quadratic(matrix)(x)
    wanted = g**2 / (g**2).sum(1, keepdim=True) * score * (1 - 1 / n**2)
    close(tl.idgi(quadratic(matrix), x, 0, steps=n), wanted)
    flat = tl.idgi(lambda z: (z - 100).relu(), x, 0, steps=n)
    assert torch.equal(flat, torch.zeros_like(x))


def test_idgi_tends_to_the_integral_of_the_slope_times_the_shares():
    net, x, b = tanh_mlp(), normal(2, 6), normal(1, 6, seed=2)
    nodes, weights = tl.probes.quadrature("gauss-legendre", 50)
    wanted = torch.zeros_like(x)
    for a, w in zip(nodes, weights, strict=True):
        g = grad(net, b + a * (x - b), 1)
        slope = (g * (x - b)).sum(1, keepdim=True)
        wanted += w * slope * g**2 / (g**2).sum(1, keepdim=True)
    errors = [
        float((tl.idgi(net, x, 1, baseline=b, steps=n) - wanted).abs().max()) for n in (50, 800)
    ]
    assert errors[1] < errors[0] / 10 < 0.01


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_beyond_float32_are_shared_as_others_are(scale):
    x, weight = normal(2, 5).float(), normal(1, 5, seed=1).float()
    a, b = (tl.idgi(linear(c * weight), x, 0) for c in (1.0, scale))
    assert torch.allclose(a, b / scale, rtol=1e-4)


def test_an_input_that_does_not_change_may_get_a_share():
    x = torch.tensor([[0.0, 5.0]]).double()
    close(tl.idgi(lambda z: z.sum(1, keepdim=True), x, 0), torch.tensor([[2.5, 2.5]]))


# --- Guided IG ---

TEN = dict(steps=10, fraction=0.25)


def slow_guided(net, x, b, target, steps, fraction, max_dist):
    """Guided IG of one picture (D,), input by input."""
    size, way = len(x), (x - b).tolist()
    gone, total = [0.0] * size, [0.0] * size
    for k in range(1, steps + 1):
        z = b + torch.tensor(gone, dtype=x.dtype) * (x - b)
        g = grad(net, z[None], target)[0].tolist()
        low, high = max(k / steps - max_dist, 0.0), min(k / steps + max_dist, 1.0)
        new = [max(share, low) for share in gone]
        missing = sum(abs(way[i]) * (k / steps - new[i]) for i in range(size))
        free = [i for i in range(size) if way[i] != 0 and new[i] < high]
        while free and missing > 1e-14:
            magnitudes = sorted(abs(g[i]) for i in free)
            last = magnitudes[min(math.floor(fraction * (size - 1)), len(free) - 1)]
            group = [i for i in free if abs(g[i]) <= last]
            room = sum(abs(way[i]) * (high - new[i]) for i in group)
            part = min(missing / room, 1.0)
            for i in group:
                new[i] += part * (high - new[i])
            missing -= part * room
            free = [i for i in free if i not in group]
        total = [t + g[i] * way[i] * (new[i] - gone[i]) for i, t in enumerate(total)]
        gone = new
    return torch.tensor(total, dtype=x.dtype)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.6, 1.0])
@pytest.mark.parametrize("max_dist", [0.0, 0.02, 0.3, 1.0])
def test_guided_ig_is_the_slow_definition(fraction, max_dist):
    net, x, b = tanh_mlp(), normal(4, 6), normal(1, 6, seed=2)
    x[1, 2] = b[0, 2]  # an input that has no way to go
    own = dict(steps=7, fraction=fraction, max_dist=max_dist)
    naive = [slow_guided(net, row, b[0], 1, **own) for row in x]
    for size in (None, 1, 3):
        found = tl.guided_integrated_gradients(net, x, 1, baseline=b, batch_size=size, **own)
        close(found, torch.stack(naive))


def test_inputs_with_equal_gradients_move_together():
    # A network of ReLUs has many gradients of exactly 0.
    torch.manual_seed(1)
    net = torch.nn.Sequential(
        torch.nn.Linear(8, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3)
    ).double()
    net[0].weight.data[:, ::2] = 0
    x, b = normal(5, 8), normal(1, 8, seed=2)
    naive = [slow_guided(net, row, b[0], 1, 6, 0.1, 1.0) for row in x]
    found = tl.guided_integrated_gradients(net.eval(), x, 1, baseline=b, steps=6, fraction=0.1)
    close(found, torch.stack(naive))


# What PAIR's saliency 0.2.1 gives for the function below, with 5 steps and a fraction of 0.4.
PAIRS = {
    1.0: [
        [0.124992421, 0.063328881, 0.359353212, -0.011874166, 0.0],
        [0.377082781, -0.083796181, 0.029377056, 0.222406093, 0.0],
    ],
    0.1: [
        [0.086027499, 0.302893879, 0.247329062, -0.056792604, 0.0],
        [0.235385967, -0.052307997, 0.01662709, 0.267969874, 0.0],
    ],
}


@pytest.mark.parametrize("max_dist", PAIRS)
def test_the_authors_package_gives_the_same_numbers(max_dist):
    weight = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0]).double()
    x = torch.tensor([[0.5, -1.0, 2.0, 0.25, 0.0], [1.0, 0.3, -0.2, 0.8, -0.6]]).double()
    b = torch.tensor([[0.1, 0.2, -0.3, 0.4, 0.0]]).double()
    own = dict(baseline=b, steps=5, fraction=0.4, max_dist=max_dist)
    found = tl.guided_integrated_gradients(lambda z: (z @ weight).tanh()[:, None], x, 0, **own)
    wanted = torch.tensor(PAIRS[max_dist], dtype=torch.float64)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-9)


def test_guided_ig_moves_first_what_changes_nothing():
    # From (1, 0) the first input moves at no gain, then the second gains 2.
    x, b = torch.tensor([[2.0, 1.0]]).double(), torch.tensor([[1.0, 0.0]]).double()
    for steps in (2, 10):
        found = tl.guided_integrated_gradients(product, x, 0, baseline=b, steps=steps)
        close(found, torch.tensor([[0.0, 2.0]]))


def test_guided_ig_of_a_linear_model_is_the_weighted_difference():
    weight, x, b = normal(3, 5), normal(4, 5, seed=1), normal(1, 5, seed=2)
    found = tl.guided_integrated_gradients(linear(weight), x, 2, baseline=b, **TEN)
    close(found, weight[2] * (x - b))


@pytest.mark.parametrize("straight", [dict(max_dist=0.0), dict(fraction=1.0)])
def test_guided_ig_without_freedom_is_integrated_gradients_of_the_left_rule(straight):
    net, x, b = tanh_mlp(), normal(3, 6), normal(1, 6, seed=2)
    wanted = tl.integrated_gradients(net, x, 1, baseline=b, steps=10, rule="left")
    close(tl.guided_integrated_gradients(net, x, 1, baseline=b, **(TEN | straight)), wanted)


def test_each_step_takes_an_equal_part_of_the_l1_distance_and_keeps_its_bound():
    net, x, b = tanh_mlp(), normal(1, 6), normal(1, 6, seed=2)
    for max_dist in (0.05, 1.0):
        own = dict(TEN, baseline=b, max_dist=max_dist)
        points = seen_points(tl.guided_integrated_gradients, net, x, **own)
        line = torch.arange(10).double() / 10
        left = (x - points).abs().sum(1) / (x - b).abs().sum()
        assert torch.allclose(left, 1 - line, atol=1e-12)
        gone = (points - b) / (x - b)
        assert float(gone.min()) >= 0 and float(gone.max()) <= 1
        assert float((gone - line[:, None]).abs().max()) <= max_dist + 1e-12


@pytest.mark.slow
def test_only_the_share_with_the_smallest_gradients_moves_in_a_small_step():
    net, x, b = tanh_mlp(), normal(1, 6), normal(1, 6, seed=2)
    own = dict(baseline=b, steps=1000, fraction=0.4)  # the three smallest of six
    points = seen_points(tl.guided_integrated_gradients, net, x, **own)
    smallest = grad(net, b, 0)[0].abs().argsort()[:3]
    assert set((points[1] != points[0]).nonzero().flatten().tolist()) == set(smallest.tolist())


@pytest.mark.slow
def test_the_sum_of_guided_ig_comes_nearer_with_more_steps():
    net, x, b = tanh_mlp(), normal(3, 6), normal(1, 6, seed=2)
    gaps = []
    for steps in (20, 640):
        a = tl.guided_integrated_gradients(net, x, 1, baseline=b, steps=steps)
        gaps.append(float(tl.metrics.completeness_gap(net, x, 1, a, b).abs().max()))
    assert gaps[1] < gaps[0] / 10 < 0.05


@pytest.mark.parametrize("steps", [50, 400])
@pytest.mark.slow
def test_along_a_kink_nobody_is_paid_for_the_rise_however_many_steps_there_are(steps):
    """From 0 the path to (3, 2) climbs along the kink of max(x_1, x_2) until x_2 is there."""
    x = torch.tensor([[3.0, 2.0]], dtype=torch.float64)
    larger = lambda z: z[:, :1] + (z[:, 1:] - z[:, :1]).relu()  # noqa: E731
    found = tl.guided_integrated_gradients(larger, x, 0, steps=steps)
    assert found.sum() == pytest.approx(1, abs=6 / steps)  # of the 3
    assert float(tl.integrated_gradients(larger, x, 0, rule="midpoint").sum()) == pytest.approx(3)


def test_a_picture_at_its_baseline_gets_zeros_and_the_others_their_maps():
    net, x = tanh_mlp(), normal(2, 6)
    b = torch.stack([x[0], normal(6, seed=2)])
    found = tl.guided_integrated_gradients(net, x, 1, baseline=b, **TEN)
    assert torch.equal(found[0], torch.zeros(6).double())
    close(found[1:], tl.guided_integrated_gradients(net, x[1:], 1, baseline=b[1:], **TEN))


@pytest.mark.slow
def test_a_real_network_gets_maps_that_add_up_in_float32():
    model = tl.load_model(device="cpu")
    x = model.preprocess([tl.load_image("coffee"), tl.load_image("chelsea")])
    b = model.preprocess([tl.load_image("coffee")]).flip(-1)
    rise = tl.metrics.completeness_gap(model, x, 285, torch.zeros_like(x), b).abs()
    gap = tl.metrics.completeness_gap(model, x, 285, tl.idgi(model, x, 285, baseline=b, steps=5), b)
    assert bool((gap.abs() < 1e-4 * rise).all())
    own = dict(baseline=b, steps=5)
    straight = tl.guided_integrated_gradients(model, x, 285, max_dist=0.0, **own)
    wanted = tl.integrated_gradients(model, x, 285, rule="left", **own)
    assert float((straight - wanted).norm() / wanted.norm()) < 1e-3
