"""The picture of README.md: python tools/readme_picture.py, from the repository's root."""

from io import BytesIO

from PIL import Image

import tutorial_lib as tl


def main() -> None:
    """Draw it, with few colours, so that it stays small."""
    model = tl.load_model("efficientnet_lite0", device="cpu")
    x, cat = model.preprocess(tl.load_image("chelsea")), 285
    sigma = tl.sigma_from_level(0.1, model.bounds)
    maps = {
        "gradient": tl.gradient(model, x, cat),
        "Integrated Gradients": tl.integrated_gradients(model, x, cat, baseline=model.bounds[0]),
        "SmoothGrad": tl.smoothgrad(model, x, cat, sigma=sigma),
        "SmoothTaylor": tl.smooth_taylor(model, x, cat, sigma=sigma),
        "AdaptGrad": tl.adaptgrad(model, x, cat, bounds=model.bounds),
        "LRP": tl.lrp(model, x, cat, rule="composite", bounds=model.bounds),
    }
    pictures = [tl.saliency_map(a)[0] for a in maps.values()]  # each on its own scale
    figure = tl.plots.picture_grid(pictures, list(maps), columns=3)
    drawn = BytesIO()
    figure.savefig(drawn, dpi=70, bbox_inches="tight")
    Image.open(drawn).convert("RGB").quantize(32).save("book/_static/readme.png", optimize=True)


if __name__ == "__main__":
    main()
