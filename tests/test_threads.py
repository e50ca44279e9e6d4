"""Threads that explain one network at once get right maps, and leave it and the process alone."""

import contextlib
import copy
import threading

import pytest
import torch
from torch import nn

import tutorial_lib as tl
from tests.closed_forms import normal
from tutorial_lib.averaging import noise
from tutorial_lib.fast.precision_modes import precision_for

X = normal(2, 3, 12, 12, dtype=torch.float32)


def network(seed=0):
    torch.manual_seed(seed)
    head = nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4)
    body = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()
    return nn.Sequential(*body, *head).eval()


def own_backward_pass(net):
    z = X.clone().requires_grad_()
    return torch.autograd.grad(net(z)[:, 0].sum(), z)[0]


CALLS = {
    "deeplift": lambda net: tl.deeplift(net, X, 0, rule={"1": "reveal_cancel"}),
    "lrp": lambda net: tl.lrp(net, X, 0, rule="composite"),
    "guided_backprop": lambda net: tl.guided_backprop(net, X, 0),
    "noisegrad": lambda net: tl.noisegrad(net, X, 0, weight_samples=3),
    "fusiongrad": lambda net: tl.fusiongrad(net, X, 0, sigma=0.1, samples=2, weight_samples=2),
    "grad_cam": lambda net: tl.grad_cam(net, X, 0, layer=net[2]),
    "score_cam": lambda net: tl.score_cam(net, X, 0, layer=net[2]),
    "occlusion": lambda net: tl.occlusion(net, X, 0, window=6),
    "smoothgrad": lambda net: tl.smoothgrad(net, X, 0, sigma=0.1, samples=5),
    "own backward pass": own_backward_pass,
}


def at_once(*work):
    """Run functions in a thread each; the first error is raised here."""
    errors = []

    def run(function):
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.slow
def test_every_method_gives_its_map_beside_every_other_on_one_network():
    net = network()
    alone = {name: call(net) for name, call in CALLS.items()}
    weights = copy.deepcopy(net.state_dict())
    switch = torch.backends.mha.get_fastpath_enabled()

    def repeat(name):
        for _ in range(15):
            assert torch.allclose(CALLS[name](net), alone[name], atol=1e-6), name

    at_once(*(lambda name=name: repeat(name) for name in CALLS for _ in range(2)))
    assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())
    assert all(isinstance(p, nn.Parameter) for p in net.parameters())
    assert torch.backends.mha.get_fastpath_enabled() == switch
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_weights_are_never_touched_not_even_for_a_moment():
    net = network()
    weight = net[0].weight.detach().clone()
    seen = []
    net[0].register_forward_hook(lambda module, inputs, out: seen.append(module.weight))
    tl.noisegrad(net, X, 0, weight_samples=3)
    assert len(seen) > 3 and any(not torch.equal(w, weight) for w in seen)  # noise on copies
    assert all(torch.equal(w, weight) for w in seen if w is net[0].weight)

    class Stop(BaseException):
        pass

    def stop(module, inputs):
        raise Stop

    noisy = noise.reweighted(net, sigma=0.5, seed=0)
    noisy[2].register_forward_pre_hook(stop)  # as an interrupt inside a pass
    with contextlib.suppress(Stop):
        noisy(X)
    assert torch.equal(net[0].weight, weight) and net[0].weight is not noisy[0].weight


def test_precision_blocks_that_overlap_wait_for_one_another():
    cuda, backends = torch.device("cuda"), torch.backends
    before = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32

    def inside():
        for _ in range(50):
            with precision_for(cuda):
                found = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32
                assert found == (False, False)

    at_once(*[inside] * 4)
    assert (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32) == before


def test_the_choice_of_a_precision_belongs_to_its_thread():
    net, exact = network(), tl.gradient(network(), X, 0)

    def other():
        assert torch.equal(tl.gradient(net, X, 0), exact)

    with tl.precision("bfloat16"):
        at_once(other)
        assert not torch.equal(tl.gradient(net, X, 0), exact)
