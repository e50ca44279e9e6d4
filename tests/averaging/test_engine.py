"""The engine's promises: chunks, memory, precision, statistics, and a model left alone."""

from functools import partial

import pytest
import torch
from torch import nn

import tutorial_lib as tl
from tests.averaging.test_methods import METHODS
from tests.closed_forms import normal, tanh_mlp
from tutorial_lib.averaging import seeded_noise
from tutorial_lib.averaging.quadrature import RULES, quadrature


class Cubic(nn.Module):
    """Every entry cubed: no sums, so that results can be compared bit for bit."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return (self.weight.to(x) * x**3).flatten(1)


cubic = Cubic().eval()


@pytest.mark.parametrize("name", METHODS)
def test_the_result_is_bit_identical_for_every_batch_size(name, device):
    method, keywords = METHODS[name]
    model = Cubic().eval().to(device)
    x = normal(5, 3, 4, dtype=torch.float32).to(device)
    target = torch.tensor([0, 3, 5, 11, 2])
    maps = [
        method(model, x, target, batch_size=size, **keywords) for size in (1, 2, 3, 7, 16, None)
    ]
    assert all(torch.equal(maps[0], other) for other in maps[1:])
    assert maps[0].shape == x.shape and maps[0].device == x.device


def test_the_noise_is_the_same_for_every_batch_size(device):
    seen = {}
    for size in (1, 4, 50):
        rows = []

        def model(z, rows=rows):
            rows.append(z.detach().clone())
            return cubic(z)

        x = normal(3, 4).to(device)
        tl.smoothgrad(model, x, 0, sigma=0.5, samples=10, batch_size=size)
        seen[size] = torch.cat(rows)
    assert torch.equal(seen[1], seen[4]) and torch.equal(seen[1], seen[50])


def test_no_forward_pass_is_larger_than_batch_size_and_no_gradient_is_wasted():
    sizes = []

    def model(z):
        sizes.append(len(z))
        return cubic(z)

    with tl.skip_model_check():
        tl.integrated_gradients(model, normal(3, 4), 0, steps=11, batch_size=8)
    assert sizes == [8, 8, 8, 8, 1]
    sizes.clear()
    with tl.skip_model_check():
        tl.integrated_gradients(model, normal(3, 4), 0, steps=11, rule="trapezoid", batch_size=100)
    assert sizes == [36]


SAMPLED = {
    "smoothgrad": lambda x, n: tl.smoothgrad(cubic, x, 0, sigma=0.1, samples=n, batch_size=4),
    "smooth_taylor": lambda x, n: tl.smooth_taylor(cubic, x, 0, roots=n, batch_size=4),
    "adaptgrad": lambda x, n: tl.adaptgrad(
        cubic, x, 0, bounds=(-9.0, 9.0), samples=n, batch_size=4
    ),
    "noisegrad": lambda x, n: tl.noisegrad(cubic, x, 0, weight_samples=n, batch_size=4),
}


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("samples", [20, 400])
@pytest.mark.slow
def test_memory_does_not_grow_with_samples(samples, name, monkeypatch):
    from torch.utils._python_dispatch import TorchDispatchMode

    monkeypatch.setattr(
        seeded_noise, "NUMBERS_PER_BLOCK", 40
    )  # numbers that are made together at most
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    with Watch():
        SAMPLED[name](normal(2, 10), samples)
    assert largest == (20 if name == "noisegrad" else 40)  # a network of its own for each draw


READ = {"item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "nonzero"}
LOOPS = SAMPLED | {
    "integrated_gradients": lambda x, n: tl.integrated_gradients(
        cubic, x, 0, steps=n, batch_size=4
    ),
    "expected_gradients": lambda x, n: tl.expected_gradients(
        cubic, x, 0, baselines=x, samples=n, batch_size=4
    ),
    "idgi": lambda x, n: tl.idgi(cubic, x, 0, steps=n, batch_size=4),
    "vargrad": lambda x, n: tl.vargrad(cubic, x, 0, sigma=0.1, samples=n, batch_size=4),
    "fusiongrad": lambda x, n: tl.fusiongrad(cubic, x, 0, sigma=0.1, weight_samples=n),
    "standard error": lambda x, n: tl.engine.average(
        cubic,
        x,
        0,
        partial(tl.probes.gaussian, sigma=0.1, samples=n),
        standard_error=True,
        batch_size=4,
    ),
}


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.slow
def test_no_number_is_brought_to_the_host_between_the_passes(name, monkeypatch):
    # On a GPU the host would wait there. Labels, which are integers, stay on the host.
    from torch.overrides import TorchFunctionMode

    monkeypatch.setattr(seeded_noise, "NUMBERS_PER_BLOCK", 40)
    counts = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if getattr(function, "__name__", "") in READ and args[0].dtype != torch.long:
                counts[-1] += 1
            return function(*args, **(kwargs or {}))

    for samples in (20, 200):
        counts.append(0)
        with tl.skip_model_check(), Watch():  # that check reads scores, once a model and shape
            LOOPS[name](normal(2, 10), samples)
    assert counts[0] == counts[1] > 0  # the checks before and after the loop


@pytest.mark.parametrize("n", [1, 2, 3, 10, 50, 51, 300])
@pytest.mark.parametrize("rule", RULES)
def test_the_weights_of_every_rule_sum_to_one(rule, n):
    nodes, weights = quadrature(rule, n)
    assert sum(weights) == pytest.approx(1, abs=1e-13)
    assert len(nodes) == len(weights) == n + (rule == "trapezoid")
    assert min(nodes) >= 0 and max(nodes) <= 1 and sorted(nodes) == nodes


def test_the_rules_put_their_nodes_where_they_say():
    assert quadrature("right", 4)[0] == [0.25, 0.5, 0.75, 1.0]
    assert quadrature("left", 4)[0] == [0.0, 0.25, 0.5, 0.75]
    assert quadrature("midpoint", 4)[0] == [0.125, 0.375, 0.625, 0.875]
    assert quadrature("trapezoid", 2) == ([0.0, 0.5, 1.0], [0.25, 0.5, 0.25])


@pytest.mark.slow
def test_the_standard_error_matches_the_spread_of_repeated_runs():
    x = torch.full((1, 1), 1.5, dtype=torch.float64)
    where = partial(tl.probes.gaussian, sigma=0.5, samples=40)
    runs = [
        tl.engine.average(cubic, x, 0, partial(where, seed=s), standard_error=True)
        for s in range(400)
    ]
    means, errors = (torch.cat(part).flatten() for part in zip(*runs, strict=True))
    assert float(errors.square().mean().sqrt() / means.std()) == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("block", [6, 18, 32_768])  # 1 and 3 of the 4 steps in a block, all
def test_the_standard_error_is_the_textbook_formula_over_draws_not_over_steps(block, monkeypatch):
    monkeypatch.setattr(seeded_noise, "NUMBERS_PER_BLOCK", block)
    x, n, steps = normal(2, 3), 5, 4
    keywords = dict(baseline="noise", bounds=(-1.0, 1.0), steps=steps, baselines=n)
    where = partial(tl.probes.path, **keywords)
    mean, error = tl.engine.average(cubic, x, 0, where, standard_error=True, batch_size=3)
    rng = torch.Generator().manual_seed(0)
    draws = []
    for _ in range(n):
        b = -1 + 2 * torch.rand(3, generator=rng, dtype=torch.float64)
        draws.append(tl.integrated_gradients(cubic, x, 0, baseline=b[None], steps=steps))
    draws = torch.stack(draws)
    assert torch.allclose(mean, draws.mean(0)) and torch.allclose(error, draws.std(0) / n**0.5)


@pytest.mark.parametrize("block", [6, 30, 32_768])  # 1 and 5 of the 13 draws in a block, all
def test_the_standard_error_is_the_textbook_formula_however_draws_lie_in_blocks(block, monkeypatch):
    monkeypatch.setattr(seeded_noise, "NUMBERS_PER_BLOCK", block)
    x, where = normal(2, 3), partial(tl.probes.gaussian, sigma=0.5, samples=13)
    mean, error = tl.engine.average(cubic, x, 0, where, standard_error=True, batch_size=4)
    draws = torch.stack([tl.gradient(cubic, z, 0) for z in where(x).points()])
    assert torch.allclose(mean, draws.mean(0)) and torch.allclose(error, draws.std(0) / 13**0.5)


@pytest.mark.parametrize("rule", RULES)
def test_steps_weigh_the_same_alone_in_a_block_and_together(rule, monkeypatch):
    x, own = normal(2, 3), dict(steps=5, rule=rule, baseline="noise", baselines=2)
    together = tl.integrated_gradients(cubic, x, 0, bounds=(-1.0, 1.0), **own)
    monkeypatch.setattr(seeded_noise, "NUMBERS_PER_BLOCK", 1)
    alone = tl.integrated_gradients(cubic, x, 0, bounds=(-1.0, 1.0), **own)
    assert torch.allclose(alone, together, rtol=1e-12)


def test_the_standard_error_of_a_single_draw_is_refused():
    with pytest.raises(ValueError, match="standard_error"):
        tl.engine.average(cubic, normal(2, 3), 0, tl.probes.point, standard_error=True)


class Odd(nn.Module):
    """Batch norm, dropout and parameters that want gradients."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(), nn.Flatten()
        )

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("name", METHODS)
def test_the_model_is_left_exactly_as_it_was(name):
    method, keywords = METHODS[name]
    net = Odd().eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    next(net.parameters()).grad = torch.ones_like(next(net.parameters()))
    method(net, normal(2, 3, 8, 8, dtype=torch.float32), 1, **keywords)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    grads = [p.grad for p in net.parameters()]
    assert torch.equal(grads[0], torch.ones_like(grads[0])) and grads[1:] == [None] * 3
    assert all(p.requires_grad for p in net.parameters())
    assert not any(m.training for m in net.modules())
    assert not any(m._forward_hooks or m._backward_hooks for m in net.modules())


@pytest.mark.parametrize("block", [torch.no_grad, torch.inference_mode])
def test_it_works_inside_the_callers_no_grad_block(block):
    net, x = tanh_mlp(), normal(2, 6)
    with block():
        inside = tl.smoothgrad(net, x.clone(), 0, sigma=0.1, samples=3)
    assert torch.equal(inside, tl.smoothgrad(net, x, 0, sigma=0.1, samples=3))


def test_gradients_work_inside_inference_mode_on_inference_tensors():
    net, target = tanh_mlp(), torch.tensor([0, 1])
    with torch.inference_mode():
        slope = tl.engine.gradients(net, normal(2, 6).clone(), target)
    assert torch.equal(slope, tl.gradient(net, normal(2, 6), target))


def test_x_that_requires_grad_is_left_alone_and_the_map_carries_no_graph():
    x = normal(2, 6).requires_grad_()
    a = tl.integrated_gradients(tanh_mlp(), x, 0, steps=3)
    assert x.grad is None and not a.requires_grad


@pytest.mark.parametrize("shape", [(2, 7), (2, 5, 8), (2, 3, 6, 6), (2, 1, 4, 4, 4)])
def test_it_works_on_models_of_any_shape(shape):
    # An MLP, text embeddings (tokens x features), pictures, volumes.
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(4)).double()
    x = normal(*shape)
    net(x)
    a = tl.integrated_gradients(net.eval(), x, 3, steps=2)
    assert torch.allclose(a.flatten(1), net[1].weight[3] * x.flatten(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_models_keep_their_dtype_and_sum_in_float32(dtype, device):
    # 3000 equal terms of 1/3000: a float16 sum would stall far below the weight.
    net = nn.Linear(4, 2, bias=False).to(device, dtype).eval()
    x = torch.ones(1, 4, dtype=dtype, device=device)
    a = tl.smoothgrad(net, x, 0, sigma=0.1, samples=3000)
    assert a.dtype == dtype
    assert torch.allclose(a.float(), net.weight[:1].float(), rtol=0.02)


def test_noise_levels_and_sigmas_convert_both_ways():
    bounds = (torch.tensor([-2.118, -2.036, -1.804]), torch.tensor([2.249, 2.429, 2.64]))
    sigma = tl.sigma_from_level(0.105, [side.view(1, 3, 1, 1) for side in bounds])
    assert sigma == pytest.approx(0.5, abs=1e-3)  # the papers' 0.5 is 10.5 % of their range
    assert tl.level_from_sigma(0.2, (-1.0, 1.0)) == pytest.approx(0.1)
    with pytest.raises(TypeError, match="bounds"):
        tl.sigma_from_level(0.1, 2.0)


def test_the_progress_bar_counts_every_gradient(capsys):
    tl.smoothgrad(cubic, normal(2, 4), 0, sigma=0.1, samples=10, progress=True)
    assert "20/20" in capsys.readouterr().err
    tl.smoothgrad(cubic, normal(2, 4), 0, sigma=0.1, samples=10)
    assert capsys.readouterr().err == ""


def test_smoothing_holds_one_inner_block_at_a_time():
    made = []

    def inner(x, *, seed=0):
        def make():
            for k in range(20):
                made.append(k)
                yield tl.engine.Block(x[None], shares=1 / 20, draws=int(k == 19))

        return tl.engine.Probes(20, make)

    seen = iter(tl.probes.gaussian(normal(1, 3), sigma=0.1, samples=2, inner=inner))
    blocks = []
    for k in range(1, 41):
        blocks.append(next(seen))
        assert len(made) == k
    assert [block.draws for block in blocks] == ([0] * 19 + [1]) * 2
