"""Gradient attribution as one idea: an average of weighted gradients.

Start with `attribution.py`, then `probes.py` and `engine.py`.
"""

from tutorial_lib import engine, metrics, probes
from tutorial_lib.attribution import gradient, gradient_x_input, integrated_gradients, smoothgrad
from tutorial_lib.maps import heatmap, saliency_map

__all__ = [
    "engine",
    "gradient",
    "gradient_x_input",
    "heatmap",
    "integrated_gradients",
    "metrics",
    "probes",
    "saliency_map",
    "smoothgrad",
]
