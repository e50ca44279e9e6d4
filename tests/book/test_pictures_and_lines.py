"""Pictures of 256 colours look like the originals, and no line begins with a comma."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from tests.built import ROOT

sys.path.insert(0, str(ROOT / "book" / "_ext"))
from clean_pages import keep_together
from few_colours import few_colours

MATH = '<span class="math notranslate nohighlight">\\(x\\)</span>'


@pytest.mark.slow
def test_a_colour_bar_beside_a_photograph_has_no_steps_and_white_stays_white(tmp_path):
    picture = np.full((256, 400, 3), 255, np.uint8)
    picture[:, :300] = np.random.default_rng(0).integers(0, 256, (256, 300, 3))
    picture[:, 340:360] = np.stack([np.arange(256), np.zeros(256), 255 - np.arange(256)], -1)[
        :, None
    ]
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    few = few_colours(buffer.getvalue(), tmp_path)
    assert len(few) < len(buffer.getvalue())
    seen = np.asarray(Image.open(io.BytesIO(few)).convert("RGB")).astype(int)
    assert np.abs(seen[:, 350] - picture[:, 350]).max() <= 5
    assert (seen[:, 380] == 255).all()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"at {MATH}, so", f'at <span class="keep">{MATH},</span> so'),
        (f"at ({MATH}) and", f'at <span class="keep">({MATH})</span> and'),
        (f"<li>{MATH}</li>", f'<li><span class="keep">{MATH}</span></li>'),
        ("20 % of", "20&#160;% of"),
        ("<code>7 % 3</code> <a title='5 %'>", "<code>7 % 3</code> <a title='5 %'>"),
    ],
)
def test_what_belongs_together_stays_on_one_line(before, after):
    assert keep_together(before) == after
