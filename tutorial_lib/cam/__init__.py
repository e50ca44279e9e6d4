"""Grad-CAM and its kin, and maps of windows and regions.

Start with `class_activation.py`: Grad-CAM, and what its kin in `activation_kin.py` (Grad-CAM++,
LayerCAM, Score-CAM) share with it. `layer_outputs.py` finds and reads a layer, `receptive_field.py`
says where its cells look. Two files look at no layer: `covered_windows.py` (occlusion) and
`region_growing.py` (XRAI).
"""

from tutorial_lib.cam.activation_kin import grad_cam_plus_plus, layer_cam, score_cam
from tutorial_lib.cam.class_activation import grad_cam, guided_grad_cam
from tutorial_lib.cam.covered_windows import occlusion
from tutorial_lib.cam.region_growing import xrai

__all__ = [
    "grad_cam",
    "grad_cam_plus_plus",
    "guided_grad_cam",
    "layer_cam",
    "occlusion",
    "score_cam",
    "xrai",
]
