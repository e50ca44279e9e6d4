"""Gradient attribution as one idea: an average of weighted gradients.

Start with `averaging/methods.py` and `smoothing.py`, then `probes.py` and `engine.py`.
"""

import importlib.metadata
from typing import Any

from tutorial_lib import cam, metrics
from tutorial_lib import pictures as data
from tutorial_lib.averaging import engine, noise, probes
from tutorial_lib.averaging.methods import (
    gradient,
    gradient_x_input,
    integrated_gradients,
    smooth_taylor,
)
from tutorial_lib.averaging.noise import (
    adaptive_sigma,
    inherent_noise,
    level_from_sigma,
    sigma_from_level,
)
from tutorial_lib.averaging.path_methods import (
    expected_gradients,
    guided_integrated_gradients,
    idgi,
)
from tutorial_lib.averaging.smoothing import adaptgrad, fusiongrad, noisegrad, smoothgrad
from tutorial_lib.averaging.squared_smoothing import smoothgrad_squared, vargrad
from tutorial_lib.cam import layer_outputs as layers
from tutorial_lib.cam import receptive_field as receptive
from tutorial_lib.cam.activation_kin import grad_cam_plus_plus, layer_cam, score_cam
from tutorial_lib.cam.class_activation import grad_cam, guided_grad_cam
from tutorial_lib.cam.covered_windows import occlusion
from tutorial_lib.cam.region_growing import xrai
from tutorial_lib.checks import skip_model_check
from tutorial_lib.fast.gradient_graph import export_gradient
from tutorial_lib.fast.precision_modes import precision
from tutorial_lib.fast.prepare_network import prepare
from tutorial_lib.heatmaps import heatmap, saliency_map
from tutorial_lib.metrics.agreement import correlation
from tutorial_lib.metrics.repeatability import Sampled, reliability, sample_until
from tutorial_lib.metrics.sigma_search import AdaptiveNoise, adaptive_noise
from tutorial_lib.networks import digits as mnist
from tutorial_lib.networks import known_truth as truth
from tutorial_lib.networks import pretrained as models
from tutorial_lib.networks import toy
from tutorial_lib.networks.adapter import Adapter, scores
from tutorial_lib.networks.digits import load_mnist
from tutorial_lib.networks.pretrained import list_models, load_model
from tutorial_lib.pictures import list_images, load_image
from tutorial_lib.rules.deeplift_contributions import deeplift, deeplift_trace
from tutorial_lib.rules.learnt_patterns import fit_patterns, pattern_attribution, pattern_net
from tutorial_lib.rules.pruned_gradients import libragrad
from tutorial_lib.rules.rectifiers import deconvnet, guided_backprop
from tutorial_lib.rules.relevance_propagation import deep_taylor, lrp
from tutorial_lib.rules.smoothed_derivatives import smoothdiff

# They bring matplotlib and ipywidgets, so they are imported where they are first used.
_LATER = {
    "figures": "tutorial_lib.show.chapter_figures",
    "plots": "tutorial_lib.show.plots",
    "widgets": "tutorial_lib.show.sliders",
}

__all__ = [  # written out, so that type checkers can read it
    "Adapter", "AdaptiveNoise", "Sampled", "adaptgrad", "adaptive_noise", "adaptive_sigma", "cam",
    "correlation", "data", "deconvnet", "deep_taylor", "deeplift", "deeplift_trace", "engine",
    "expected_gradients", "export_gradient", "figures", "fit_patterns", "fusiongrad", "grad_cam",
    "grad_cam_plus_plus", "gradient", "gradient_x_input", "guided_backprop", "guided_grad_cam",
    "guided_integrated_gradients", "heatmap", "idgi", "inherent_noise", "integrated_gradients",
    "layer_cam", "layers", "level_from_sigma", "libragrad", "list_images", "list_models",
    "load_image", "load_mnist", "load_model", "lrp", "metrics", "mnist", "models", "noise",
    "noisegrad", "occlusion", "pattern_attribution", "pattern_net", "plots", "precision", "prepare",
    "probes", "receptive", "reliability", "saliency_map", "sample_until", "score_cam", "scores",
    "sigma_from_level", "skip_model_check", "smooth_taylor", "smoothdiff", "smoothgrad",
    "smoothgrad_squared", "toy", "truth", "vargrad", "widgets", "xrai",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("tutorial_lib")
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = importlib.import_module(_LATER[name])
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
