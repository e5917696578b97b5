"""Takes the pictures of the page that the documents show, from a service that runs.

    electrain serve --model run words names --run run
    python benchmarks/page_pictures.py --url http://127.0.0.1:8765 --output docs/images

`run` detects replaced words, `words` fills in blanks (a masked language model, say), `names` is fine-tuned on
people_daily_ner. Needs the extra `dev` (playwright), Pillow and a Chromium.
"""

import argparse
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

MOST_COLOURS = 256  # a page has few, and a PNG with a palette is a third of the size
TEXTS = {
    "detect": (
        "A group of people are standing in front of a because building. The little boy jumps into the opinion with "
        "his brother."
    ),
    "tag": "记者张大伟从伦敦报道：英国首相布莱尔会见了中国代表团。",
}


def detect(page: Page) -> None:
    """The words of a text, and what the model would write in place of one of them."""
    page.locator("#tab-detect").click()
    page.locator("#panel-detect textarea").fill(TEXTS["detect"])
    page.locator("#panel-detect button.main").click()
    page.locator("#panel-detect .answer:not(.old)").wait_for()
    page.locator(".word", has_text="because").hover()
    page.locator(".card li").first.wait_for()


def tag(page: Page) -> None:
    """The names in a sentence."""
    page.locator("#tab-tag").click()
    page.locator("#panel-tag textarea").fill(TEXTS["tag"])
    page.locator("#panel-tag button.main").click()
    page.locator("#panel-tag .answer:not(.old)").wait_for()


def live(page: Page) -> None:
    """The report of a run."""
    page.locator("#tab-live").click()
    runs = page.locator("#panel-live select option")
    if runs.count():
        page.locator("#panel-live select").select_option(index=runs.count() - 1)
        page.locator("#panel-live .report").wait_for()
    page.locator("#panel-live .plot .thick").first.wait_for()


# file, what is shown, width, height, colours, language
PICTURES = (
    ("page-odd-words", detect, 1180, 920, "light", "en-GB"),
    ("page-odd-words-zh-phone", detect, 360, 740, "dark", "zh-CN"),
    ("page-names-zh", tag, 1180, 760, "light", "zh-CN"),
    ("page-live-report", live, 1180, 960, "light", "en-GB"),
)


def main() -> None:
    """Writes each picture that the service can show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8765")
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name, show, width, height, scheme, locale in PICTURES:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, locale=locale)
            page.set_default_timeout(60_000)
            page.goto(given.url)
            page.locator("[role=tab]").first.wait_for(state="attached")
            if page.locator(f"#tab-{show.__name__}").count():
                show(page)
                path = given.output / f"{name}.png"
                page.screenshot(path=path, animations="disabled")
                Image.open(path).convert("RGB").quantize(MOST_COLOURS).save(path, optimize=True)
                print(f"{path}: {path.stat().st_size:,} bytes")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
