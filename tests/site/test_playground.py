"""The playground computes in a browser what the library computes, and keeps its manners."""

import io
import json
import re
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from http.server import ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image

import tutorial_lib as tl
from tests.built import SITE
from tests.site.conftest import ARGUMENTS, BROWSERS, Quiet, missing
from tests.site.test_access import AXE, RUN, SET_THEME
from tests.site.test_site import TOO_WIDE

pytestmark = pytest.mark.slow

PAGE = "book/playground.html"
QUICK = "samples=6&steps=10&baselines=2&beside=nothing&noise=20&seed=0&picture=coffee"
DONE = "() => document.getElementById('pg-rate').textContent.startsWith('Done')"
READY = "() => !document.getElementById('pg-load').disabled"


@pytest.fixture(scope="module")
def address():
    """The page below a sub-path of a server."""
    if not (SITE / "_static/playground/network.onnx").exists():
        missing("the site was built without the playground's network")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE.parent)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{SITE.name}/{PAGE}"
        server.shutdown()


@pytest.fixture(scope="module")
def asked() -> list[str]:
    """The addresses of all requests of the visits."""
    return []


@pytest.fixture(scope="module")
def context(browser, asked):
    """A browser whose cache one test leaves to the next."""
    context = browser.new_context(viewport={"width": 1300, "height": 900}, accept_downloads=True)
    context.set_default_timeout(120_000)
    context.on("request", lambda request: asked.append(request.url))
    yield context
    context.close()


@pytest.fixture(scope="module")
def page(context, address):
    """The page with its network."""
    page = context.new_page()
    page.goto(f"{address}#{QUICK}", wait_until="load")
    page.wait_for_function(READY)
    assert re.search(r"\d\d MB", page.inner_text("#pg-load"))
    start(page)
    page.locator(".pg-take summary").click()
    return page


@pytest.fixture(scope="module")
def model():
    return tl.load_model("efficientnet_lite0", device="cpu")


def start(page) -> None:
    page.click("#pg-load")
    page.wait_for_function(DONE)


def show(page, settings: str) -> None:
    """Follow a link to other settings and wait for the maps."""
    page.evaluate("() => { document.getElementById('pg-rate').textContent = ''; }")
    page.evaluate("hash => { location.hash = hash; }", f"{QUICK}&{settings}")
    page.wait_for_function(DONE)


def saved(page, what: str) -> bytes:
    with page.expect_download() as download:
        page.click(f"#pg-save-{what}")
    return download.value.path().read_bytes()


def shown_map(page) -> torch.Tensor:
    return torch.from_numpy(np.load(io.BytesIO(saved(page, "numbers"))))


def give(page, file: str, data: bytes) -> None:
    page.set_input_files("#pg-file", {"name": file, "mimeType": "", "buffer": data})


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def turned(picture: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    return encoded(picture, "JPEG", quality=90, exif=exif)


def see_through(picture: Image.Image) -> bytes:
    ramp = Image.linear_gradient("L").resize(picture.size)
    picture.putalpha(ramp.point(lambda v: 0 if v < 90 else 255))
    return encoded(picture, "PNG")


def agree(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Kinks of the network flip single entries, so that norms are compared, and no maximum."""
    assert ours.shape == theirs.shape
    assert float((ours - theirs).norm() / theirs.norm()) < 0.02
    assert float(tl.correlation(ours, theirs)[0]) >= 0.999


def test_a_seed_draws_torchs_noise(page):
    draw = """async seed => { const {Generator} = await import('../_static/playground/noise.js');
        const some = new Generator(seed); some.skip(1600);
        return [[...some.randn(1600)], [...some.rand(1600)]]; }"""
    for seed in (0, 4_000_000_000):
        rng = torch.Generator().manual_seed(seed)
        torch.rand(1600, generator=rng)
        theirs = torch.randn(1600, generator=rng), torch.rand(1600, generator=rng)
        normal, uniform = map(torch.tensor, page.evaluate(draw, seed))
        assert torch.allclose(normal, theirs[0], atol=1e-5)
        assert torch.equal(uniform, theirs[1])


@pytest.mark.parametrize(
    ("file", "encode"),
    [
        ("one.png", lambda p: encoded(p.convert("RGB"), "PNG")),
        ("turned.jpg", lambda p: turned(p.convert("RGB"))),
        ("see-through.png", see_through),
    ],
)
def test_the_network_sees_a_file_as_in_python(page, model, tmp_path, file, encode):
    path = tmp_path / file
    path.write_bytes(encode(tl.load_image("astronaut").crop((30, 0, 480, 300))))
    page.evaluate("() => { document.getElementById('pg-rate').textContent = ''; }")
    give(page, file, path.read_bytes())
    page.wait_for_function(DONE)
    x = model.preprocess(tl.load_image(path))
    about = json.loads(saved(page, "settings"))
    assert torch.allclose(torch.tensor(about["scores"]), model(x)[0], atol=2e-3)
    square = Image.open(io.BytesIO(saved(page, "picture")))
    assert torch.equal(model.preprocess(square), x)  # to the last grey level
    assert page.inner_text(".pg-class >> nth=0").startswith(model.categories[model(x).argmax()])


MAPS = {
    "method=gradient": tl.gradient,
    "method=gradient-x-input": tl.gradient_x_input,
    "method=ig-black": lambda f, x, t: tl.integrated_gradients(
        f, x, t, baseline=f.bounds[0], steps=10
    ),
    "method=ig-white": lambda f, x, t: tl.integrated_gradients(
        f, x, t, baseline=f.bounds[1], steps=10
    ),
    "method=ig-noise&seed=3": lambda f, x, t: tl.integrated_gradients(
        f, x, t, baseline="noise", baselines=2, steps=10, bounds=f.bounds, seed=3
    ),
    "method=smoothgrad&noise=10": lambda f, x, t: tl.smoothgrad(
        f, x, t, sigma=tl.sigma_from_level(0.1, f.bounds), samples=6
    ),
    "method=smoothtaylor&seed=7": lambda f, x, t: tl.smooth_taylor(
        f, x, t, sigma=tl.sigma_from_level(0.2, f.bounds), roots=6, seed=7
    ),
    "method=adaptgrad&confidence=90": lambda f, x, t: tl.adaptgrad(
        f, x, t, bounds=f.bounds, confidence=0.9, samples=6
    ),
    "method=grad-cam": lambda f, x, t: tl.grad_cam(f, x, t, layer="network.bn2"),
    "method=grad-cam-plus-plus": lambda f, x, t: tl.grad_cam_plus_plus(
        f, x, t, layer="network.bn2"
    ),
    "method=layer-cam": lambda f, x, t: tl.layer_cam(f, x, t, layer="network.bn2"),
}


@pytest.mark.parametrize("settings", MAPS)
def test_a_map_is_the_librarys(page, model, settings):
    show(page, f"{settings}&target=504&picture=coffee")
    x = model.preprocess(tl.load_image("coffee"))
    agree(shown_map(page), MAPS[settings](model, x, 504))


def test_two_methods_see_the_same_draws_and_the_python_computes_both(page, tmp_path, monkeypatch):
    page.evaluate("() => { document.getElementById('pg-rate').textContent = ''; }")
    picture = turned(tl.load_image("rocket"))
    (tmp_path / 'a "quoted" näme.jpg').write_bytes(picture)
    give(page, 'a "quoted" näme.jpg', picture)
    page.wait_for_function(DONE)
    for methods in ("smoothgrad", "smoothtaylor"), ("smoothtaylor", "smoothgrad"):
        page.select_option("[name=beside]", methods[1])
        page.select_option("[name=method]", methods[0])
        page.evaluate("() => { document.getElementById('pg-rate').textContent = ''; }")
        page.wait_for_function(DONE)
        monkeypatch.chdir(tmp_path)
        names = {}
        exec(page.text_content("#pg-python"), names)
        agree(shown_map(page), names["attribution"])


def test_reliability_and_standard_error_are_those_of_the_draws(page, model):
    show(page, "method=smoothgrad&picture=coffee&target=504&samples=6")
    x = model.preprocess(tl.load_image("coffee"))
    sigma = tl.sigma_from_level(0.2, model.bounds)
    points = tl.probes.gaussian(x, sigma=sigma, samples=6).points()[:, 0]
    draws = tl.gradient(model, points, 504)
    r = float(tl.correlation(draws[::2].mean(0)[None], draws[1::2].mean(0)[None]))
    error = draws.std(0).square().mean().sqrt() / 6**0.5
    text = page.inner_text(".pg-numbers >> nth=1")
    assert float(re.search(r"reliability (-?[\d.]+)", text)[1].rstrip(".")) == pytest.approx(
        2 * r / (1 + r), abs=0.02
    )
    percent = float(100 * error / draws.mean(0).square().mean().sqrt())
    assert int(re.search(r"error (\d+) %", text)[1]) == pytest.approx(percent, abs=2)
    got = int((model(points).argmax(1) == 504).sum())
    assert f"calls {got} of the noisy copies" in text


def test_a_slider_that_moves_ends_the_job_before(page, model):
    show(page, "method=smoothgrad&picture=coffee&target=504&samples=6")
    page.fill("[name=samples]", "200")
    page.wait_for_function("() => !document.getElementById('pg-stop').disabled")
    page.fill("[name=samples]", "6")
    for _ in range(20):
        page.press("[name=noise]", "ArrowRight")
    page.evaluate("() => { document.getElementById('pg-rate').textContent = ''; }")
    page.wait_for_function(DONE)
    assert page.input_value("[name=noise]") == "40"
    assert "6 of 6 samples" in page.inner_text(".pg-numbers >> nth=1")
    sigma = tl.sigma_from_level(0.4, model.bounds)
    x = model.preprocess(tl.load_image("coffee"))
    agree(shown_map(page), tl.smoothgrad(model, x, 504, sigma=sigma, samples=6))


def test_stop_stops_at_once_and_keeps_the_map(page):
    show(page, "method=smoothgrad&picture=coffee&target=504")
    page.fill("[name=samples]", "200")
    page.get_by_text(re.compile(r"^([2-9]|\d\d) of 200")).wait_for()
    page.click("#pg-stop")
    stopped = page.inner_text(".pg-numbers >> nth=1")
    page.wait_for_timeout(1000)
    assert page.inner_text(".pg-numbers >> nth=1") == stopped and " 200 of 200" not in stopped
    assert "Stopped" in page.text_content("#pg-status")


@pytest.mark.parametrize(
    ("file", "data", "said"),
    [
        ("notes.txt", b"no picture", "no picture"),
        ("empty.png", b"", "no picture"),
        ("IMG_1.HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        ("strip.png", encoded(Image.new("RGB", (300, 1)), "PNG"), "100 : 1"),
    ],
)
def test_a_bad_file_is_named_and_changes_nothing(page, file, data, said):
    show(page, "method=gradient&picture=coffee")
    give(page, file, data)
    page.locator("#pg-status.pg-error").wait_for()
    assert said in page.inner_text("#pg-status")
    assert page.locator("[name=picture]:checked").get_attribute("value") == "coffee"
    assert 'load_image("coffee")' in page.text_content("#pg-python")


def test_a_huge_picture_is_made_smaller_and_the_page_says_so(page):
    show(page, "method=gradient&picture=coffee")
    give(page, "huge.jpg", encoded(Image.new("RGB", (5000, 4000), "teal"), "JPEG"))
    page.get_by_text("20 million pixels").wait_for()
    page.locator("#pg-python", has_text='load_image("picture.png")').wait_for()


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_that_is_dropped_or_pasted_is_explained(page, way):
    show(page, "method=gradient&picture=coffee")
    data = list(encoded(Image.new("RGB", (300, 240), "navy"), "PNG"))
    page.evaluate(
        """([way, bytes]) => {
            document.getElementById("pg-rate").textContent = "";
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "blue.png"));
            const given = way === "drop" ? {dataTransfer: data} : {clipboardData: data};
            const kind = {drop: DragEvent, paste: ClipboardEvent}[way];
            document.body.dispatchEvent(new kind(way, {...given, bubbles: true, cancelable: true}));
        }""",
        [way, data],
    )
    page.wait_for_function("() => location.hash.includes('picture=own')")
    page.wait_for_function(DONE)
    saved_picture = Image.open(io.BytesIO(saved(page, "picture")))
    assert np.asarray(saved_picture.convert("RGB")).reshape(-1, 3).max(0).tolist() == [0, 0, 128]


def test_the_camera_takes_a_picture_and_is_switched_off(browser, address):
    """Chromium's own test picture stands for a camera."""
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    path = next(filter(None, map(shutil.which, BROWSERS)))
    other = browser.browser_type.launch(executable_path=path, args=[*ARGUMENTS, *fake])
    page = other.new_page()
    page.goto(f"{address}#{QUICK}", wait_until="load")
    page.wait_for_function(READY)
    for button, picture in (("#pg-close", "coffee"), ("#pg-snap", "own")):
        page.click("#pg-camera")
        page.wait_for_function("() => document.querySelector('#pg-shot video').videoWidth > 0")
        page.evaluate(
            "() => { window.light = document.querySelector('#pg-shot video').srcObject; }"
        )
        page.click(button)
        page.wait_for_function(
            "() => window.light.getTracks().every(t => t.readyState === 'ended')"
        )
        page.wait_for_function(f"() => location.hash.includes('picture={picture}')")
    colours = page.evaluate(
        """() => {
            const canvas = document.getElementById("pg-picture");
            const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return new Set(data).size;
        }"""
    )
    assert colours > 2  # the picture, and not the black of a camera that is off
    other.close()


def test_without_a_camera_the_page_says_what_to_do(page):
    page.click("#pg-camera")
    page.locator("#pg-status.pg-error").wait_for()
    assert "choose its file" in page.inner_text("#pg-status")


def test_the_keyboard_is_enough(page):
    show(page, "method=gradient&picture=coffee")
    page.press(".pg-class >> nth=1", "Enter")
    page.wait_for_function(DONE)
    second = page.locator(".pg-class >> nth=1")
    assert second.get_attribute("aria-pressed") == "true"
    assert f"target={second.get_attribute('value')}" in page.url
    page.focus("[name=picture]:checked")
    page.keyboard.press("ArrowRight")
    assert "picture=coffee" not in page.url
    page.fill("#pg-search", "tabby (281)")
    page.wait_for_function("() => location.hash.includes('target=281')")
    page.press(".pg-try >> nth=2", "Enter")
    assert "method=ig-black" in page.url and "target=281" in page.url


def test_nothing_is_wider_than_a_phone_and_axe_finds_no_barrier(page):
    show(page, "method=smoothgrad&beside=adaptgrad&picture=chelsea")
    page.add_script_tag(path=AXE)
    # The theme's button that comes after scrolling is not the playground's.
    page.add_style_tag(
        content="* { transition: none !important } #pst-back-to-top { display: none !important }"
    )
    for width in (390, 1300):
        page.set_viewport_size({"width": width, "height": 844})
        page.wait_for_timeout(500)
        assert page.evaluate(TOO_WIDE) == []
        for theme in ("light", "dark"):
            page.evaluate(SET_THEME, theme)
            assert page.evaluate(RUN, None) == []


def test_a_bad_link_is_an_ordinary_visit(page):
    show(page, "method=voodoo&noise=900&seed=x&target=5000&view=none&picture=none&toString=1")
    for nonsense in ("voodoo", "5000", "none", "seed=x", "toString"):
        assert nonsense not in page.url
    assert "noise=60" in page.url  # as far as the slider goes


def test_the_next_visit_loads_nothing(page, context, address, asked):
    before = len(asked)
    again = context.new_page()
    again.goto(f"{address}#{QUICK}", wait_until="load")
    again.wait_for_function(READY)
    assert again.inner_text("#pg-load") == "Start"
    start(again)
    again.close()
    assert [url for url in asked[before:] if url.endswith((".onnx", ".wasm"))] == []


def test_nothing_left_the_site(page, address, asked):
    site = address.removesuffix(PAGE)
    assert [url for url in asked if not url.startswith((site, "blob:", "data:"))] == []


@contextmanager
def visit(browser, address, *, script="", missing_files="", **options):
    """A visit of its own, with what went wrong."""
    context = browser.new_context(**options)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    if script:
        page.add_init_script(script)
    if missing_files:
        page.route(missing_files, lambda route: route.fulfill(status=404))
    page.goto(address, wait_until="load")
    yield page, errors
    context.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"script": "delete globalThis.WebAssembly"}, "no WebAssembly"),
        ({"missing_files": "**/onnxruntime/*.wasm"}, "when the book was built"),
        ({"missing_files": "**/network.onnx"}, "when the book was built"),
        ({"missing_files": "**/onnxruntime/*.mjs"}, "did not start"),
    ],
)
def test_what_is_missing_is_named(browser, address, options, said):
    with visit(browser, address, **options) as (page, _):
        page.wait_for_function(READY)
        page.click("#pg-load")
        page.locator("#pg-status.pg-error").wait_for()
        assert said in page.inner_text("#pg-status")
        assert page.locator("#pg-load").is_enabled()  # to try again


def test_from_disk_one_sentence_says_how_to_serve_it(browser, address):
    with visit(browser, f"{SITE.as_uri()}/{PAGE}") as (page, errors):
        assert "python -m http.server" in page.inner_text("#pg-disk")
        assert not page.locator("#pg-form").is_visible()
        assert not page.locator(".pg-try").first.is_visible()
        assert errors == []


def test_without_javascript_one_sentence_says_so(browser, address):
    with visit(browser, address, java_script_enabled=False) as (page, _):
        assert "needs JavaScript" in page.inner_text("article noscript")
        assert not page.locator("#pg-form").is_visible()
        assert not page.locator("#pg-disk").is_visible()
