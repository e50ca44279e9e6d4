"""Gradient attribution as one idea: an average of weighted gradients.

Start with `attribution.py`, then `probes.py` and `engine.py`.
"""

from tutorial_lib import data, engine, figures, metrics, models, plots, probes, widgets
from tutorial_lib.attribution import gradient, gradient_x_input, integrated_gradients, smoothgrad
from tutorial_lib.data import list_images, load_image
from tutorial_lib.maps import heatmap, saliency_map
from tutorial_lib.models import list_models, load_model
from tutorial_lib.probes import level_from_sigma, sigma_from_level

__all__ = [
    "data",
    "engine",
    "figures",
    "gradient",
    "gradient_x_input",
    "heatmap",
    "integrated_gradients",
    "level_from_sigma",
    "list_images",
    "list_models",
    "load_image",
    "load_model",
    "metrics",
    "models",
    "plots",
    "probes",
    "saliency_map",
    "sigma_from_level",
    "smoothgrad",
    "widgets",
]
