"""SmoothTaylor, AdaptGrad, NoiseGrad and FusionGrad against closed forms and naive loops."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import tutorial_lib as tl
from tests.averaging.test_methods import close
from tests.closed_forms import linear, normal, quadratic, symmetric, tanh_mlp
from tutorial_lib.averaging.seeded_noise import child_seed

BOUNDS = (-3.0, 4.0)


def noise(n, *shape, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=rng, dtype=dtype) for _ in range(n)]


def grad(net, z, target):
    z = z.clone().requires_grad_()
    return torch.autograd.grad(net(z)[:, target].sum(), z)[0]


def within(a, truth, error, factor=4.5):
    assert bool(((a - truth).abs() < factor * error + 1e-9).all()), (
        ((a - truth) / error).abs().max()
    )


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_smooth_taylor_equals_the_naive_loop_over_the_same_noise(dtype, tolerance):
    net, x = tanh_mlp().to(dtype), normal(3, 6).to(dtype)
    roots = [x + 0.4 * e for e in noise(9, 6, dtype=dtype, seed=2)]
    naive = torch.stack([(x - z) * grad(net, z, 1) for z in roots]).double().mean(0)
    a = tl.smooth_taylor(net, x, 1, sigma=0.4, roots=9, seed=2)
    assert float((a - naive).norm() / naive.norm()) < tolerance
    given = tl.smooth_taylor(net, x, 1, roots=torch.stack(roots))
    assert float((given - naive).norm() / naive.norm()) < tolerance


def test_smooth_taylor_is_smoothgrad_of_minus_gradient_times_noise_on_the_same_draws():
    # checks eq-st-smoothgrad: M(z) = grad f(z) * (x - z), the sign of Eq. 9
    net, x = tanh_mlp(), normal(1, 6)

    def m(model, z, target):
        return tl.gradient(model, z, target) * (x - z)

    a = tl.smooth_taylor(net, x, 0, sigma=0.3, roots=20, seed=4)
    close(a, tl.smoothgrad(net, x, 0, sigma=0.3, samples=20, method=m, seed=4))


@pytest.mark.slow
def test_smooth_taylor_of_a_quadratic_form_is_minus_sigma_squared_times_the_diagonal():
    # g_i = sum_j A_ij (x_j + s e_j), so -s e_i g_i has the mean -s^2 A_ii.
    matrix, x, s, n = symmetric(4), normal(2, 4, seed=1), 0.7, 4000
    a = tl.smooth_taylor(quadratic(matrix), x, 0, sigma=s, roots=n)
    slope = x @ matrix
    variance = s**2 * (slope**2 + s**2 * ((matrix**2).sum(1) + matrix.diagonal() ** 2))
    within(a, (-(s**2) * matrix.diagonal()).expand_as(x), (variance / n).sqrt())


def test_smooth_taylor_of_a_linear_model_is_zero_within_its_standard_error():
    weight, x, s, n = normal(3, 5), normal(2, 5, seed=1), 0.5, 4000
    where = partial(tl.probes.taylor_roots, sigma=s, roots=n)
    a, error = tl.engine.average(linear(weight), x, 2, where, standard_error=True)
    within(a, torch.zeros_like(a), error)
    assert torch.allclose(error, (s * weight[2].abs() / math.sqrt(n)).expand_as(x), rtol=0.1)


def test_one_given_root_is_the_first_order_taylor_term():
    net, x, root = tanh_mlp(), normal(2, 6), normal(2, 6, seed=9)
    a = tl.smooth_taylor(net, x, 1, roots=root[None])
    close(a, (x - root) * grad(net, root, 1))


def test_given_roots_may_differ_between_the_pictures_of_a_batch():
    net, x, roots = tanh_mlp(), normal(2, 6), normal(5, 2, 6, seed=9)
    both = tl.smooth_taylor(net, x, 1, roots=roots)
    single = [tl.smooth_taylor(net, x[i : i + 1], 1, roots=roots[:, i : i + 1]) for i in (0, 1)]
    close(both, torch.cat(single))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_adaptgrad_equals_the_naive_loop_over_the_same_noise(dtype, tolerance):
    net, x = tanh_mlp().to(dtype), normal(3, 6).to(dtype)
    p = torch.tensor((1 + 0.95) / 2, dtype=torch.float64)
    sigma = torch.minimum((x + 3).abs(), (x - 4).abs()) / (math.sqrt(2) * torch.erfinv(p)).to(dtype)
    draws = noise(9, 6, dtype=dtype, seed=2)
    naive = torch.stack([grad(net, x + sigma * e, 1) for e in draws]).double().mean(0)
    a = tl.adaptgrad(net, x, 1, bounds=BOUNDS, samples=9, seed=2)
    assert float((a - naive).norm() / naive.norm()) < tolerance


def test_adaptgrad_without_room_is_the_gradient():
    net, x = tanh_mlp(), normal(3, 6).clamp(-1, 1).sign()
    close(tl.adaptgrad(net, x, 1, bounds=(-1.0, 1.0)), tl.gradient(net, x, 1))


def cubes(z):
    """f(x) = sum x_i^3: every entry is a cube of its own."""
    return (z**3).sum(1, keepdim=True)


def test_adaptgrad_of_a_cube_is_the_cube_blurred_by_its_own_sigma():
    places, n = torch.tensor([0.5, 2.0, -3.0], dtype=torch.float64), 20_000
    sigma = tl.adaptive_sigma(places[None], BOUNDS)[0]
    a = tl.adaptgrad(cubes, places.repeat(1, n), 0, bounds=BOUNDS, samples=1)
    spread = torch.sqrt(36 * places**2 * sigma**2 + 18 * sigma**4)
    within(a.view(n, 3).mean(0), 3 * places**2 + 3 * sigma**2, spread / math.sqrt(n))


@pytest.mark.parametrize("smoother", [tl.smoothgrad, tl.adaptgrad])
def test_a_smoothed_method_is_the_mean_of_the_method_at_the_noisy_copies(smoother):
    net, x = tanh_mlp(), normal(2, 6)
    own = dict(bounds=BOUNDS) if smoother is tl.adaptgrad else dict(sigma=0.3)
    sigma = tl.adaptive_sigma(x, BOUNDS) if smoother is tl.adaptgrad else 0.3
    copies = [x + sigma * e for e in noise(5, 6)]
    given = normal(3, 2, 6, seed=8)
    for method, keywords in {
        tl.gradient_x_input: {},
        tl.integrated_gradients: {"baseline": -3.0, "steps": 4},
        tl.smooth_taylor: {"roots": given},
    }.items():
        naive = torch.stack([method(net, z, 1, **keywords) for z in copies]).mean(0)
        close(smoother(net, x, 1, samples=5, method=method, **own, **keywords), naive)


def copies_with_noise(net, weight_sigma, n, seed):
    """Copies of a network whose parameters are multiplied by the noise that the package draws."""
    for k in range(n):
        rng = torch.Generator().manual_seed(child_seed(seed, k, 1))
        other = copy.deepcopy(net)
        for p in other.parameters():
            eps = torch.randn(p.shape, generator=rng, dtype=p.dtype)
            p.data = p.data * (1 + weight_sigma * eps)
        yield other


def test_noisegrad_is_the_mean_over_copies_of_the_network_with_noisy_weights():
    net, x = tanh_mlp(), normal(3, 6)
    naive = [grad(other, x, 1) for other in copies_with_noise(net, 0.3, 5, seed=7)]
    a = tl.noisegrad(net, x, 1, weight_sigma=0.3, weight_samples=5, seed=7)
    close(a, torch.stack(naive).mean(0))
    for size in (1, 2, 4):
        b = tl.noisegrad(net, x, 1, weight_sigma=0.3, weight_samples=5, seed=7, batch_size=size)
        close(a, b)


def test_fusiongrad_is_smoothgrad_at_each_network_with_fresh_noise():
    net, x = tanh_mlp(), normal(2, 6)
    naive = [
        tl.smoothgrad(other, x, 1, sigma=0.4, samples=3, seed=child_seed(7, k))
        for k, other in enumerate(copies_with_noise(net, 0.3, 4, seed=7))
    ]
    own = dict(weight_sigma=0.3, weight_samples=4, sigma=0.4, samples=3, seed=7)
    for size in (1, 2, 5, None):
        close(tl.fusiongrad(net, x, 1, batch_size=size, **own), torch.stack(naive).mean(0))


def test_noisegrad_of_smoothgrad_is_fusiongrad():
    net, x = tanh_mlp(), normal(2, 6)
    a = tl.fusiongrad(net, x, 1, sigma=0.4, samples=3, weight_samples=4)
    b = tl.noisegrad(net, x, 1, weight_samples=4, method=tl.smoothgrad, sigma=0.4, samples=3)
    assert torch.equal(a, b)


class Product(nn.Module):
    """f(x) = sum_i u_i x_i with all u_i = 2, or, in `factors`, with u_i as a product."""

    def __init__(self, inputs, factors):
        super().__init__()
        one = torch.full((inputs,), 2 ** (1 / factors), dtype=torch.float64)
        self.factors = nn.ParameterList([one.clone() for _ in range(factors)])

    def forward(self, x):
        return (x * torch.stack(list(self.factors)).prod(0)).sum(1, keepdim=True)


@pytest.mark.parametrize("factors", [1, 2])
def test_noisegrad_has_the_known_mean_and_a_spread_that_depends_on_the_parametrisation(factors):
    # One function, u x or v w x with v w = u: variances s^2 and (1 + s^2)^2 - 1 times u^2.
    s, n = 0.5, 20_000
    x = torch.ones(1, n, dtype=torch.float64)
    a = tl.noisegrad(Product(n, factors).eval(), x, 0, weight_sigma=s, weight_samples=1)
    spread = 2 * math.sqrt((1 + s**2) ** factors - 1)
    within(a.mean(), torch.tensor(2.0), torch.tensor(spread / math.sqrt(n)))
    assert float(a.std()) == pytest.approx(spread, rel=0.05)


@pytest.mark.slow
def test_the_standard_error_of_noisegrad_is_that_of_its_networks():
    net, x, s, n = nn.Linear(5, 3).double().eval(), normal(1, 5), 0.4, 400
    where = partial(tl.probes.noisy_weights, weight_sigma=s, weight_samples=n)
    _, error = tl.engine.average(net, x, 2, where, standard_error=True)
    assert torch.allclose(error, s * net.weight[2].detach().abs() / math.sqrt(n), rtol=0.15)


class Interrupted(KeyboardInterrupt):
    pass


@pytest.mark.parametrize("after", [0, 1, 7])
def test_weights_are_as_they_were_even_after_an_interrupt(after):
    net, x, calls = tanh_mlp(), normal(2, 6), []

    def stop(*_):
        calls.append(1)
        if len(calls) > after:
            raise Interrupted

    before = copy.deepcopy(net.state_dict())
    hook = net[1].register_forward_hook(stop)
    with pytest.raises(Interrupted):
        tl.fusiongrad(net, x, 0, sigma=0.1, samples=2, weight_samples=6, batch_size=2)
    hook.remove()
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_noise_on_weights_keeps_tied_weights_tied_and_buffers_untouched():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4, bias=False)
            self.b = nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x):
            assert self.b.weight is self.a.weight
            assert torch.equal(self.norm.running_var, torch.ones(4).double())
            return self.norm(self.b(self.a(x)))

    tl.noisegrad(Tied().double().eval(), normal(2, 4), 0, weight_samples=2)


def test_weight_noise_may_stand_inside_smoothing_but_not_inside_weight_noise():
    net, x = tanh_mlp(), normal(2, 6)
    copies = [x + 0.2 * e for e in noise(3, 6)]
    naive = [
        tl.noisegrad(net, z, 0, weight_samples=2, seed=child_seed(0, k))
        for k, z in enumerate(copies)
    ]
    own = dict(sigma=0.2, samples=3, method=tl.noisegrad, weight_samples=2)
    close(tl.smoothgrad(net, x, 0, **own), torch.stack(naive).mean(0))
    with pytest.raises(TypeError, match="method: noise on weights"):
        tl.noisegrad(net, x, 0, method=partial(tl.fusiongrad, sigma=0.1))


def test_truncated_noise_stays_inside_and_has_the_known_mean():
    x, s, n = torch.tensor([[-3.0, -2.0, 0.5, 3.9]], dtype=torch.float64), 2.0, 20_000
    probes = tl.probes.truncated_gaussian(x.repeat(1, n), sigma=s, bounds=BOUNDS, samples=1)
    z = probes.points().view(n, 4)
    assert float(z.min()) >= BOUNDS[0] and float(z.max()) <= BOUNDS[1]
    a, b = (BOUNDS[0] - x) / s, (BOUNDS[1] - x) / s

    def density(t):
        return torch.exp(-(t**2) / 2) / math.sqrt(2 * math.pi)

    mass = torch.special.ndtr(b) - torch.special.ndtr(a)
    shift = (density(a) - density(b)) / mass
    spread = s * (1 + (a * density(a) - b * density(b)) / mass - shift**2).sqrt()
    within(z.mean(0), (x + s * shift)[0], spread[0] / math.sqrt(n))
    assert torch.allclose(z.std(0), spread[0], rtol=0.03)


def test_truncated_noise_far_from_both_bounds_is_gaussian_and_without_sigma_is_nothing():
    x = normal(1, 4000, seed=3) * 0.1
    far = tl.probes.truncated_gaussian(x, sigma=0.5, bounds=(-50.0, 50.0)).points()
    assert float((far - x).std()) == pytest.approx(0.5, rel=0.05)
    ends = torch.tensor([[-3.0, 4.0, 1.0]]).double()
    still = tl.probes.truncated_gaussian(ends, sigma=0.0, bounds=BOUNDS).points()
    assert torch.equal(still, ends.expand_as(still))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_truncated_noise_of_a_value_rounded_beyond_its_bound_stays_at_that_bound(dtype):
    x = torch.tensor([[-2.12, 2.64]], dtype=dtype)
    x[0, 0] = x[0, 0].nextafter(torch.tensor(-9.0, dtype=dtype))
    x[0, 1] = x[0, 1].nextafter(torch.tensor(9.0, dtype=dtype))
    for sigma in (1e-8, 1e-3):
        z = tl.probes.truncated_gaussian(x, sigma=sigma, bounds=(-2.12, 2.64)).points()
        assert torch.allclose(z.float(), torch.tensor([[-2.12, 2.64]]), atol=0.02)


@pytest.mark.parametrize("name", ["smooth_taylor", "adaptgrad", "noisegrad", "fusiongrad", "M"])
@pytest.mark.slow
def test_half_precision_gives_the_map_of_double_precision(name, device):
    def own_method(model, z, target):
        return tl.gradient(model, z, target) * target[:, None].to(z.dtype)

    calls = {
        "smooth_taylor": lambda net, x: tl.smooth_taylor(net, x, 1, roots=normal_roots.to(x)),
        "adaptgrad": lambda net, x: tl.adaptgrad(net, x, 1, bounds=BOUNDS, samples=400),
        "noisegrad": lambda net, x: tl.noisegrad(net, x, 1, weight_sigma=0.1, weight_samples=60),
        "fusiongrad": lambda net, x: tl.fusiongrad(
            net, x, 1, sigma=0.1, samples=6, weight_sigma=0.1, weight_samples=60
        ),
        "M": lambda net, x: tl.smoothgrad(net, x, 1, sigma=0.1, samples=200, method=own_method),
    }
    net, x = tanh_mlp().to(device), normal(2, 6).to(device)
    normal_roots = x.cpu() + 0.3 * normal(9, 2, 6, seed=3)
    wide = calls[name](net, x)
    half = calls[name](copy.deepcopy(net).bfloat16(), x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert float((half.double() - wide).norm() / wide.norm()) < 0.1


def test_a_smoothing_inside_a_smoothing_says_which_argument_it_misses():
    net, x = tanh_mlp(), normal(2, 6)
    with pytest.raises(TypeError, match=r"method: the inner smoothgrad has no sigma.*partial"):
        tl.smoothgrad(net, x, 0, sigma=0.1, method=tl.smoothgrad)
    with pytest.raises(TypeError, match=r"method: the inner adaptgrad has no bounds; Give it"):
        tl.smoothgrad(net, x, 0, sigma=0.1, method=tl.adaptgrad)


def test_keywords_of_the_call_win_over_those_of_the_partial():
    net, x = tanh_mlp(), normal(2, 6)
    own = partial(tl.integrated_gradients, steps=3, rule="midpoint")
    a = tl.smoothgrad(net, x, 0, sigma=0.1, samples=3, method=own, steps=7)
    keywords = dict(method=tl.integrated_gradients, steps=7, rule="midpoint")
    assert torch.equal(a, tl.smoothgrad(net, x, 0, sigma=0.1, samples=3, **keywords))


def test_a_callable_object_can_be_smoothed_even_if_it_has_no_hash():
    class Doubled:
        __hash__ = None

        def __call__(self, model, x, target):
            return 2 * tl.gradient(model, x, target)

    net, x = tanh_mlp(), normal(2, 6)
    a = tl.smoothgrad(net, x, 0, sigma=0.1, samples=3, method=Doubled())
    close(a, 2 * tl.smoothgrad(net, x, 0, sigma=0.1, samples=3))


def test_a_sigma_from_numpy_is_a_number_like_any_other():
    net, x = tanh_mlp(), normal(2, 6)
    assert type(tl.checks.sigma(np.float64(0.2), x)) is float
    expected = tl.smoothgrad(net, x, 0, sigma=0.2, samples=3)
    assert torch.equal(tl.smoothgrad(net, x, 0, sigma=np.float64(0.2), samples=3), expected)


@pytest.mark.parametrize("batch_size", [None, 1, 3, 4])
@pytest.mark.slow
def test_a_tensor_with_a_row_for_each_picture_goes_with_its_picture(batch_size):
    net, x, baseline = tanh_mlp(), normal(3, 6), normal(3, 6, seed=9)
    shared = dict(sigma=0.2, samples=5, method=tl.deeplift)
    found = tl.smoothgrad(net, x, 1, baseline=baseline, batch_size=batch_size, **shared)
    each = [
        tl.smoothgrad(net, x[k : k + 1], 1, baseline=baseline[k : k + 1], **shared)
        for k in range(3)
    ]
    close(found, torch.cat(each), 1e-12)
    other = torch.tensor([2, 0, 1])

    def difference(model, points, target, *, against):
        return tl.gradient(model, points, target) - tl.gradient(model, points, against[:, 0])

    for smooth, options in (
        (tl.smoothgrad, dict(sigma=0.2, samples=5)),
        (tl.adaptgrad, dict(bounds=(-9.0, 9.0), samples=5)),
        (tl.noisegrad, dict(weight_samples=3)),
        (tl.fusiongrad, dict(sigma=0.2, samples=2, weight_samples=2)),
    ):
        options |= dict(batch_size=batch_size)
        found = smooth(net, x, 1, method=difference, against=other[:, None], **options)
        parts = [smooth(net, x, target, **options) for target in (1, other)]
        close(found, parts[0] - parts[1], 1e-12)


def test_a_list_as_long_as_the_batch_is_not_split_among_the_pictures():
    def contrast(model, points, target, *, classes):
        first, second = (tl.gradient(model, points, int(c)) for c in classes)
        return first - second

    net, x = tanh_mlp(), normal(2, 6)
    shared = dict(sigma=0.2, samples=3)
    for method in (contrast, partial(contrast, classes=torch.tensor([0, 2]))):
        classes = {} if method is not contrast else dict(classes=torch.tensor([0, 2]))
        with pytest.raises(ValueError, match=r"classes: .*2 numbers for 2 pictures.*view\(-1, 1\)"):
            tl.smoothgrad(net, x, 1, method=method, **classes, **shared)
    found = tl.smoothgrad(net, x, 1, method=lambda *a: contrast(*a, classes=[0, 2]), **shared)
    parts = [tl.smoothgrad(net, x, k, **shared) for k in (0, 2)]
    close(found, parts[0] - parts[1], 1e-12)


def test_a_keyword_that_nothing_takes_is_named_with_the_one_that_is_near():
    net, x = tanh_mlp(), normal(2, 6)
    with pytest.raises(TypeError, match=r"n_samples: neither smoothgrad nor.*did you mean samples"):
        tl.smoothgrad(net, x, 1, sigma=0.1, n_samples=5)
    with pytest.raises(TypeError, match=r"step: .*integrated_gradients takes it.*mean steps\?"):
        tl.smoothgrad(net, x, 1, sigma=0.1, method=tl.integrated_gradients, step=5)
    with pytest.raises(TypeError, match=r"baselin: .*deeplift takes it; did you mean baseline\?"):
        tl.smoothgrad(net, x, 1, sigma=0.1, method=tl.deeplift, baselin=0.0)


def test_noise_on_the_weights_of_a_function_says_what_to_write():
    net = tanh_mlp()
    with pytest.raises(TypeError, match=r"model: noise on the weights.*tl\.scores\(network"):
        tl.noisegrad(lambda z: net(z), normal(1, 6), 0)


def test_a_number_of_numpy_is_a_number_of_roots():
    net, x = tanh_mlp(), normal(2, 6)
    found = tl.smooth_taylor(net, x, 1, sigma=0.1, roots=np.int64(3))
    assert torch.equal(found, tl.smooth_taylor(net, x, 1, sigma=0.1, roots=3))


def test_a_method_of_the_users_that_calls_autograd_can_be_smoothed():
    def mine(model, x, target):
        x = x.clone().requires_grad_()
        score = model(x).gather(1, target[:, None]).sum()
        return torch.autograd.grad(score, x)[0]

    net, x, options = tanh_mlp(), normal(2, 6), dict(sigma=0.1, samples=4)
    found = tl.smoothgrad(net, x, 1, method=mine, **options)
    assert torch.allclose(found, tl.smoothgrad(net, x, 1, **options)) and not found.requires_grad
