"""Every bad input gets a ValueError or TypeError that names the argument."""

import pytest
import torch
from torch import nn

import tutorial_lib as tl
from tests.closed_forms import normal, tanh_mlp

X, NET = normal(3, 6), tanh_mlp()
NAN = float("nan")

CASES = {
    "target out of range": ("target", tl.gradient, dict(target=3)),
    "target out of range for one picture": (
        "target",
        tl.gradient,
        dict(target=torch.tensor([0, 1, 9])),
    ),
    "target negative": ("target", tl.gradient, dict(target=-1)),
    "target of the wrong length": ("target", tl.gradient, dict(target=torch.tensor([0, 1]))),
    "target of the wrong shape": ("target", tl.gradient, dict(target=torch.zeros(3, 1).long())),
    "target of the wrong dtype": ("target", tl.gradient, dict(target=torch.zeros(3))),
    "target int32": ("target", tl.gradient, dict(target=torch.zeros(3, dtype=torch.int32))),
    "target a float": ("target", tl.gradient, dict(target=1.0)),
    "target a bool": ("target", tl.gradient, dict(target=True)),
    "target None": ("target", tl.gradient, dict(target=None)),
    "x without a batch dimension": ("x", tl.gradient, dict(x=X[0])),
    "x empty": ("x", tl.gradient, dict(x=X[:0])),
    "x with NaN": ("x", tl.gradient, dict(x=X.clone().fill_(NAN))),
    "x with inf": ("x", tl.gradient, dict(x=X.clone().fill_(float("inf")))),
    "x of integers": ("x", tl.gradient, dict(x=torch.ones(3, 6, dtype=torch.int64))),
    "x not a tensor": ("x", tl.gradient, dict(x=[[1.0]])),
    "baseline of another shape": (
        "baseline",
        tl.integrated_gradients,
        dict(baseline=torch.zeros(1, 5)),
    ),
    "baseline without batch": ("baseline", tl.integrated_gradients, dict(baseline=torch.zeros(6))),
    "baseline NaN": ("baseline", tl.integrated_gradients, dict(baseline=NAN)),
    "baseline an unknown word": ("baseline", tl.integrated_gradients, dict(baseline="black")),
    "baseline 'a tensor'": (
        "baseline",
        tl.integrated_gradients,
        dict(baseline="a tensor", bounds=(0.0, 1.0)),
    ),
    "baseline of bools": (
        "baseline",
        tl.integrated_gradients,
        dict(baseline=torch.ones(1, 6).bool()),
    ),
    "baseline complex": (
        "baseline",
        tl.integrated_gradients,
        dict(baseline=torch.ones(1, 6) * 1j),
    ),
    "baseline too large for the dtype of x": (
        "baseline",
        tl.integrated_gradients,
        dict(model=tanh_mlp().float(), x=X.float(), baseline=1e300),
    ),
    "bounds a word beside a fixed baseline": (
        "bounds",
        tl.integrated_gradients,
        dict(bounds="nonsense"),
    ),
    "steps beyond reason": ("steps", tl.integrated_gradients, dict(steps=2**70)),
    "points of Gauss-Legendre beyond reason": (
        "steps",
        tl.integrated_gradients,
        dict(steps=10**5, rule="gauss-legendre"),
    ),
    "rule an array": ("rule", tl.integrated_gradients, dict(rule=X.numpy())),
    "sigma beyond floats": ("sigma", tl.smoothgrad, dict(sigma=10**400)),
    "method that returns another shape": (
        "method",
        tl.smoothgrad,
        dict(sigma=0.1, method=lambda m, x, t: x.sum(1, keepdim=True)),
    ),
    "method that returns no tensor": (
        "method",
        tl.smoothgrad,
        dict(sigma=0.1, method=lambda m, x, t: 3),
    ),
    "seed negative without noise": ("seed", tl.gradient, dict(seed=-1)),
    "seed a word": ("seed", tl.integrated_gradients, dict(seed="a")),
    "target beyond int64": ("target", tl.gradient, dict(target=2**70)),
    "x sparse": ("x", tl.gradient, dict(x=X.to_sparse())),
    "x meta": ("x", tl.gradient, dict(x=X.to("meta"))),
    "x nested": ("x", tl.gradient, dict(x=torch.nested.as_nested_tensor([X[0], X[1]]))),
    "x of 8 bits": ("x", tl.gradient, dict(x=X.to(torch.float8_e5m2))),
    "target meta": ("target", tl.gradient, dict(target=torch.zeros(3).long().to("meta"))),
    "target sparse": ("target", tl.gradient, dict(target=torch.zeros(3).long().to_sparse())),
    "model in training mode behind its method": (
        "model",
        tl.gradient,
        dict(model=nn.Linear(6, 3).double().train().forward),
    ),
    "model with a NaN gradient": (
        "model",
        tl.gradient,
        dict(x=torch.ones(3, 6).double(), model=lambda x: (x - 1).abs().sqrt()),
    ),
    "baseline None": ("baseline", tl.integrated_gradients, dict(baseline=None)),
    "noise without bounds": ("bounds", tl.integrated_gradients, dict(baseline="noise")),
    "bounds reversed": (
        "bounds",
        tl.integrated_gradients,
        dict(baseline="noise", bounds=(1.0, 0.0)),
    ),
    "bounds not a pair": ("bounds", tl.integrated_gradients, dict(baseline="noise", bounds=1.0)),
    "many fixed baselines": ("baselines", tl.integrated_gradients, dict(baselines=5)),
    "no baselines": ("baselines", tl.integrated_gradients, dict(baselines=0)),
    "steps 0": ("steps", tl.integrated_gradients, dict(steps=0)),
    "steps a float": ("steps", tl.integrated_gradients, dict(steps=5.0)),
    "rule unknown": ("rule", tl.integrated_gradients, dict(rule="simpson")),
    "samples 0": ("samples", tl.smoothgrad, dict(sigma=0.1, samples=0)),
    "sigma negative": ("sigma", tl.smoothgrad, dict(sigma=-0.1)),
    "sigma NaN": ("sigma", tl.smoothgrad, dict(sigma=NAN)),
    "sigma a word": ("sigma", tl.smoothgrad, dict(sigma="15%")),
    "sigma of another shape": ("sigma", tl.smoothgrad, dict(sigma=torch.ones(4))),
    "method not a function": ("method", tl.smoothgrad, dict(sigma=0.1, method="gradient")),
    "keyword unknown to the method": ("step", tl.smoothgrad, dict(sigma=0.1, step=5)),
    "roots 0": ("roots", tl.smooth_taylor, dict(roots=0)),
    "roots a float": ("roots", tl.smooth_taylor, dict(roots=1.5)),
    "roots without their own dimension": ("roots", tl.smooth_taylor, dict(roots=X)),
    "roots of another batch": ("roots", tl.smooth_taylor, dict(roots=X[None, :2])),
    "no roots at all": ("roots", tl.smooth_taylor, dict(roots=X[None][:0])),
    "roots with NaN": ("roots", tl.smooth_taylor, dict(roots=X[None] * NAN)),
    "roots a list": ("roots", tl.smooth_taylor, dict(roots=[[1.0]])),
    "sigma beside given roots": ("sigma", tl.smooth_taylor, dict(roots=X[None], sigma=-1.0)),
    "seed beside given roots": ("seed", tl.smooth_taylor, dict(roots=X[None], seed=-1)),
    "confidence that rounds to 1": (
        "confidence",
        tl.adaptgrad,
        dict(bounds=(-9, 9), confidence=0.9999999999999999),
    ),
    "roots of bools": ("roots", tl.smooth_taylor, dict(roots=X[None] > 0)),
    "sigma of SmoothTaylor negative": ("sigma", tl.smooth_taylor, dict(sigma=-1.0)),
    "x outside the bounds": ("x", tl.adaptgrad, dict(bounds=(0.0, 1.0))),
    "bounds reversed for AdaptGrad": ("bounds", tl.adaptgrad, dict(bounds=(9.0, -9.0))),
    "bounds None": ("bounds", tl.adaptgrad, dict(bounds=None)),
    "confidence 0": ("confidence", tl.adaptgrad, dict(bounds=(-9, 9), confidence=0)),
    "confidence 1": ("confidence", tl.adaptgrad, dict(bounds=(-9, 9), confidence=1.0)),
    "confidence in percent": ("confidence", tl.adaptgrad, dict(bounds=(-9, 9), confidence=95)),
    "confidence NaN": ("confidence", tl.adaptgrad, dict(bounds=(-9, 9), confidence=NAN)),
    "confidence a word": ("confidence", tl.adaptgrad, dict(bounds=(-9, 9), confidence="high")),
    "samples 0 for AdaptGrad": ("samples", tl.adaptgrad, dict(bounds=(-9, 9), samples=0)),
    "smoothing that leaves the bounds of AdaptGrad": (
        "x",
        tl.smoothgrad,
        dict(sigma=50.0, method=tl.adaptgrad, bounds=(-9, 9)),
    ),
    "samples 0 for VarGrad": ("samples", tl.vargrad, dict(sigma=0.1, samples=0)),
    "samples a float for VarGrad": ("samples", tl.vargrad, dict(sigma=0.1, samples=1.0)),
    "sigma of squared SmoothGrad negative": ("sigma", tl.smoothgrad_squared, dict(sigma=-0.1)),
    "keyword unknown to squared SmoothGrad": (
        "step",
        tl.smoothgrad_squared,
        dict(sigma=0.1, step=5),
    ),
    "baselines a number": ("baselines", tl.expected_gradients, dict(baselines=5)),
    "baselines of another shape": (
        "baselines",
        tl.expected_gradients,
        dict(baselines=torch.zeros(4, 5)),
    ),
    "baselines without their own dimension": (
        "baselines",
        tl.expected_gradients,
        dict(baselines=X[0]),
    ),
    "no baselines in a tensor": ("baselines", tl.expected_gradients, dict(baselines=X[:0])),
    "baselines with NaN": ("baselines", tl.expected_gradients, dict(baselines=X * NAN)),
    "baselines of bools": ("baselines", tl.expected_gradients, dict(baselines=X > 0)),
    "samples 0 from baselines": (
        "samples",
        tl.expected_gradients,
        dict(baselines=X, samples=0),
    ),
    "seed negative from baselines": (
        "seed",
        tl.expected_gradients,
        dict(baselines=X, seed=-1),
    ),
    "steps 0 of IDGI": ("steps", tl.idgi, dict(steps=0)),
    "steps of IDGI beyond reason": ("steps", tl.idgi, dict(steps=10**7)),
    "baseline of IDGI of another shape": ("baseline", tl.idgi, dict(baseline=torch.zeros(1, 5))),
    "seed of IDGI negative": ("seed", tl.idgi, dict(seed=-1)),
    "target of IDGI out of range": ("target", tl.idgi, dict(target=3)),
    "IDGI of a model with a NaN gradient": (
        "model",
        tl.idgi,
        dict(baseline=1.0, model=lambda x: (x - 1).abs().sqrt()),
    ),
    "Guided IG of a model with a NaN gradient": (
        "model",
        tl.guided_integrated_gradients,
        dict(baseline=1.0, model=lambda x: (x - 1).abs().sqrt()),
    ),
    "steps 0 of Guided IG": ("steps", tl.guided_integrated_gradients, dict(steps=0)),
    "fraction 0": ("fraction", tl.guided_integrated_gradients, dict(fraction=0)),
    "fraction in percent": ("fraction", tl.guided_integrated_gradients, dict(fraction=25)),
    "max_dist negative": ("max_dist", tl.guided_integrated_gradients, dict(max_dist=-0.1)),
    "max_dist a word": ("max_dist", tl.guided_integrated_gradients, dict(max_dist="2%")),
    "baseline of Guided IG NaN": ("baseline", tl.guided_integrated_gradients, dict(baseline=NAN)),
    "weight noise for a function": ("model", tl.noisegrad, dict(model=lambda x: x)),
    "weight noise for a module without weights": ("model", tl.noisegrad, dict(model=nn.Flatten())),
    "weight_sigma negative": ("weight_sigma", tl.noisegrad, dict(weight_sigma=-0.1)),
    "weight_sigma NaN": ("weight_sigma", tl.noisegrad, dict(weight_sigma=NAN)),
    "weight_sigma a tensor": ("weight_sigma", tl.noisegrad, dict(weight_sigma=X)),
    "weight_samples 0": ("weight_samples", tl.noisegrad, dict(weight_samples=0)),
    "weight_samples 0 in FusionGrad": (
        "weight_samples",
        tl.fusiongrad,
        dict(sigma=0.1, weight_samples=0),
    ),
    "sigma of FusionGrad negative": ("sigma", tl.fusiongrad, dict(sigma=-0.1)),
    "samples 0 in FusionGrad": ("samples", tl.fusiongrad, dict(sigma=0.1, samples=0)),
    "weight noise in training mode": (
        "model",
        tl.noisegrad,
        dict(model=nn.Linear(6, 3).double().train()),
    ),
    "weight noise inside weight noise": ("method", tl.noisegrad, dict(method=tl.noisegrad)),
    "keyword unknown to NoiseGrad's method": ("step", tl.noisegrad, dict(step=5)),
    "batch_size 0": ("batch_size", tl.gradient, dict(batch_size=0)),
    "seed negative": ("seed", tl.smoothgrad, dict(sigma=0.1, seed=-1)),
    "model not callable": ("model", tl.gradient, dict(model=3)),
    "model in training mode": ("model", tl.gradient, dict(model=nn.Linear(6, 3).double().train())),
    "model with a part in training mode": (
        "model",
        tl.gradient,
        dict(model=nn.Sequential(nn.Dropout().train(), nn.Linear(6, 3)).double()),
    ),
    "model whose output is not (N, C)": ("model", tl.gradient, dict(model=lambda x: x.sum(1))),
    "model that returns another N": ("model", tl.gradient, dict(model=lambda x: x[:2])),
    "model that returns a tuple": ("model", tl.gradient, dict(model=lambda x: (x, x))),
    "model that returns integers": ("model", tl.gradient, dict(model=lambda x: x.long())),
    "model that ignores x": ("model", tl.gradient, dict(model=lambda x: torch.zeros(3, 3))),
    "model that detaches x": ("model", tl.gradient, dict(model=lambda x: x.detach() * 2)),
    "model that depends on something else": (
        "model",
        tl.gradient,
        dict(model=lambda x: torch.ones(3, 3, requires_grad=True) * 2),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_by_an_error_that_names_the_argument(case):
    name, method, given = CASES[case]
    arguments = {"model": NET, "x": X, "target": 0, **given}
    model, x, target = (arguments.pop(key) for key in ("model", "x", "target"))
    with pytest.raises((ValueError, TypeError), match=rf"(^|\W){name}\W"):
        method(model, x, target, **arguments)


def test_the_training_mode_error_says_why_and_what_to_do():
    with pytest.raises(ValueError, match=r"dropout is random.*model\.eval\(\)"):
        tl.gradient(nn.Linear(6, 3).train(), X, 0)


@pytest.mark.slow
def test_a_picture_without_a_batch_dimension_is_named_before_the_network_fails():
    model = tl.load_model(device="cpu")
    with pytest.raises(ValueError, match=r"x: .*x\[None\]"):
        tl.gradient(model, torch.zeros(3, 224, 224), 285)


def test_the_attribution_given_to_the_gap_must_have_the_shape_of_x():
    with pytest.raises(ValueError, match="attribution"):
        tl.metrics.completeness_gap(NET, X, 0, X[:, :5])


@pytest.mark.parametrize(
    "name, given",
    [
        ("x", dict(x=X.long())),
        ("x", dict(x=X * NAN)),
        ("x", dict(x=[0.0])),
        ("sigma", dict(sigma=-1.0)),
        ("sigma", dict(sigma=None)),
        ("bounds", dict(bounds=(1.0, 1.0))),
        ("bounds", dict(bounds=1.0)),
    ],
)
def test_inherent_noise_refuses_bad_input_by_the_name_of_the_argument(name, given):
    arguments = {"x": X, "sigma": 0.1, "bounds": (-9.0, 9.0), **given}
    with pytest.raises((ValueError, TypeError), match=rf"(^|\W){name}\W"):
        tl.inherent_noise(**arguments)


@pytest.mark.parametrize("bad", [torch.zeros(3, 4, 4), torch.zeros(1, 3, 4, 4).long(), None])
def test_maps_refuse_what_is_not_a_picture_attribution(bad):
    with pytest.raises((ValueError, TypeError), match="attribution"):
        tl.saliency_map(bad)
