"""The playground's picture in README.md: python tools/playground_picture.py, after `make book`."""

import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))  # as tools/run_pages.py does

from tools.pdf import launch, served

SETTINGS = "method=smoothgrad&beside=adaptgrad&noise=10&samples=100&picture=chelsea"
DONE = "() => document.getElementById('pg-rate').textContent.startsWith('Done')"


def main() -> None:
    """Visit the page in Chromium, wait for two maps of 100 samples, and keep its form."""
    with sync_playwright() as playwright, served(Path("_build/html")) as origin:
        browser = launch(playwright)
        page = browser.new_page(viewport={"width": 1100, "height": 1200})
        page.goto(f"{origin}book/playground.html#{SETTINGS}")
        page.click("#pg-load:enabled")
        page.wait_for_function(DONE, timeout=300_000)
        shot = page.locator("#pg-form").screenshot()
        browser.close()
    picture = Image.open(BytesIO(shot)).convert("RGB")
    picture.save("book/_static/playground.jpg", quality=60, optimize=True)


if __name__ == "__main__":
    main()
