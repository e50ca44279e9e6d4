"""Grad-CAM: class activation maps from a layer's output, layer outputs, and receptive fields."""

from tutorial_lib.cam.class_activation import grad_cam, guided_grad_cam

__all__ = ["grad_cam", "guided_grad_cam"]
