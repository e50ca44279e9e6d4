"""The playground's picture in README.md: python tools/playground_picture.py, after `make book`."""

import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

from PIL import Image
from playwright.sync_api import sync_playwright

SETTINGS = "method=smoothgrad&beside=adaptgrad&noise=10&samples=100&picture=chelsea"
DONE = "() => document.getElementById('pg-rate').textContent.startsWith('Done')"


def main() -> None:
    """Visit the page in Chromium, wait for two maps of 100 samples, and keep its form."""
    handler = partial(SimpleHTTPRequestHandler, directory="_build/html")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1100, "height": 1200})
        page.goto(f"http://127.0.0.1:{server.server_port}/book/playground.html#{SETTINGS}")
        page.click("#pg-load:enabled")
        page.wait_for_function(DONE, timeout=300_000)
        shot = page.locator("#pg-form").screenshot()
        browser.close()
        server.shutdown()
    picture = Image.open(BytesIO(shot)).convert("RGB")
    picture.save("book/_static/playground.jpg", quality=60, optimize=True)


if __name__ == "__main__":
    main()
