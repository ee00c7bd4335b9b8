"""The pictures of the documents: a miniature of the sample is run, and its pages in the UI are photographed.

``python -m tests.ui.screenshots [FOLDER]`` (``make screenshots``) writes ``docs/pictures/*.png``. The run lies in FOLDER, where it is
found again, or else in a folder that is removed. It needs Chromium and some minutes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from tests.graph.conftest import Run, miniature
from tests.ui.browser import CHROMIUM, FLAGS, webserver

if TYPE_CHECKING:
    from playwright.sync_api import Page

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
SETTLED = 20
"""Seconds until everything on a page has come to rest, also on a busy machine."""
LARGEST = 200_000
"""Of a picture, in bytes."""
RECIPES = ("base", "dpo_rewrites", "dpo_rewards")


class Shot(NamedTuple):
    """A picture: which page, what must be there before it is taken, and how large the window is."""

    name: str
    path: str
    awaited: str
    width: int = 1400
    height: int = 800


SHOTS = (
    Shot("graph", "/locations/rlhi/asset-groups/preferences", "reward_pairs", width=1600, height=900),
    Shot("asset", "/assets/preference_pairs?view=overview", "Latest materialization", height=1000),
    Shot("checks", "/assets/rewrite_pairs?view=checks", "rewrites_are_conserved"),
    Shot("runs", "/runs/", "preference_data", height=500),
)


def ran(folder: Path) -> Run:
    """The miniature with preference data and a few recipes; made only if it is not in the folder."""
    run = miniature(folder)
    if not run.has("scores"):
        launches = [("preference_data", run.months()), *(("training", f"{recipe}...{recipe}") for recipe in RECIPES)]
        for job, partitions in launches:
            done = run.launch(job, partitions)
            if done.returncode != 0:
                raise RuntimeError(done.stdout[-4000:] + done.stderr[-4000:])
    return run


def written(shot: Shot, png: bytes) -> Path:
    """A picture with few enough colours to stay small.

    Raises:
        ValueError: It is too large all the same.
    """
    file = PICTURES / f"{shot.name}.png"
    Image.open(BytesIO(png)).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)
    if file.stat().st_size > LARGEST:
        raise ValueError(f"{file} has {file.stat().st_size:,} bytes, more than {LARGEST:,}: take a smaller window")
    return file


@contextmanager
def page(width: int = 1400, height: int = 800) -> Iterator[Page]:
    """A window of a browser that talks to this machine only."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        try:
            yield browser.new_page(viewport={"width": width, "height": height})
        finally:
            browser.close()


def take(run: Run) -> list[Path]:
    """Photograph all pages."""
    PICTURES.mkdir(exist_ok=True)
    files = []
    with webserver(run.env) as server, page() as window:
        for shot in SHOTS:
            window.set_viewport_size({"width": shot.width, "height": shot.height})
            window.goto(f"{server}{shot.path}", wait_until="domcontentloaded")
            window.get_by_text(shot.awaited).first.wait_for(timeout=120_000)
            time.sleep(SETTLED)
            files.append(written(shot, window.screenshot()))
    return files


def main() -> None:
    """Run the miniature and take the pictures."""
    if len(sys.argv) > 1:
        files = take(ran(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory() as folder:
            files = take(ran(Path(folder)))
    sys.stdout.writelines(f"{file}: {file.stat().st_size:,} bytes\n" for file in files)


if __name__ == "__main__":
    main()
