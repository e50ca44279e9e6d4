"""Gradient attribution as one idea: an average of weighted gradients.

Start with `attribution.py` and `smoothing.py`, then `probes.py` and `engine.py`.
"""

from tutorial_lib import (
    cam,
    data,
    engine,
    figures,
    layers,
    metrics,
    mnist,
    models,
    noise,
    plots,
    probes,
    receptive,
    toy,
    widgets,
)
from tutorial_lib.adaptive import AdaptiveNoise, adaptive_noise
from tutorial_lib.attribution import (
    gradient,
    gradient_x_input,
    integrated_gradients,
    smooth_taylor,
)
from tutorial_lib.backward import deconvnet, guided_backprop, lrp
from tutorial_lib.cam import grad_cam, guided_grad_cam
from tutorial_lib.data import list_images, load_image
from tutorial_lib.deeplift import deeplift, deeplift_trace
from tutorial_lib.maps import heatmap, saliency_map
from tutorial_lib.metrics import correlation
from tutorial_lib.mnist import load_mnist
from tutorial_lib.models import list_models, load_model
from tutorial_lib.noise import (
    adaptive_sigma,
    inherent_noise,
    level_from_sigma,
    sigma_from_level,
)
from tutorial_lib.precision import precision
from tutorial_lib.sampling import Sampled, reliability, sample_until
from tutorial_lib.smoothing import adaptgrad, fusiongrad, noisegrad, smoothgrad

__all__ = [
    "AdaptiveNoise",
    "Sampled",
    "adaptgrad",
    "adaptive_noise",
    "adaptive_sigma",
    "cam",
    "correlation",
    "data",
    "deconvnet",
    "deeplift",
    "deeplift_trace",
    "engine",
    "figures",
    "fusiongrad",
    "grad_cam",
    "gradient",
    "gradient_x_input",
    "guided_backprop",
    "guided_grad_cam",
    "heatmap",
    "inherent_noise",
    "integrated_gradients",
    "layers",
    "level_from_sigma",
    "list_images",
    "list_models",
    "load_image",
    "load_mnist",
    "load_model",
    "lrp",
    "metrics",
    "mnist",
    "models",
    "noise",
    "noisegrad",
    "plots",
    "precision",
    "probes",
    "receptive",
    "reliability",
    "saliency_map",
    "sample_until",
    "sigma_from_level",
    "smooth_taylor",
    "smoothgrad",
    "toy",
    "widgets",
]
