"""Figures and sliders."""

from tutorial_lib import checks

checks.extra("matplotlib", "show")  # before the modules here import it
