"""Open every page of the site in a browser that has no network, and say what is not right.

Links are checked, too: each leads to a page that is there, and where a lesson names a function, the
function's page names the lesson.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LOCAL = ("file:", "data:", "blob:", "about:")
LOOK = """async () => {
  const wrong = [];
  for (const details of document.querySelectorAll("details")) details.open = true;
  for (const image of document.images) {
    image.loading = "eager";
    try { await image.decode(); } catch { wrong.push("picture " + image.src.slice(0, 80)); }
    if (!image.alt) wrong.push("picture without words: " + image.src.slice(0, 80));
  }
  for (const audio of document.querySelectorAll("audio")) {
    if (!audio.src && !audio.querySelector("source")) {
      wrong.push("player without sound");
      continue;
    }
    audio.preload = "metadata";
    audio.load();
    const ready = await new Promise(done => {
      audio.onloadedmetadata = () => done(audio.duration > 0);
      audio.onerror = () => done(false);
      for (const source of audio.querySelectorAll("source")) source.onerror = () => done(false);
      setTimeout(() => done(false), 10000);
    });
    if (!ready) wrong.push("sound that does not load");
  }
  return wrong;
}"""


def check_links(folder: Path) -> list[str]:
    """Sentences about links of the site that lead nowhere, or one way only.

    Args:
        folder: of the site.
    """
    problems: list[str] = []
    found: dict[Path, set[Path]] = {}
    for page in sorted(folder.rglob("*.html")):
        text = page.read_text("utf-8")
        for href in sorted(set(re.findall(r'<a [^>]*?href="([^"#?]+)', text))):
            target = (page.parent / unquote(href)).resolve()
            if "://" not in href and not href.startswith("mailto:") and not target.is_file():
                problems.append(f"{page.relative_to(folder)}: no page behind {href}")
        article = re.search("<article.*</article>", text, re.DOTALL)
        hrefs = re.findall(r'href="([^"#?]+\.html)', article[0]) if article else ()
        found[page.resolve()] = {(page.parent / unquote(href)).resolve() for href in hrefs}
    kinds = [{p for p in found if p.parent.name == name} for name in ("lessons", "functions")]
    for one, other in (kinds, reversed(kinds)):
        for page in sorted(one):
            for target in sorted(found[page] & other):
                if page not in found[target]:
                    problems.append(f"{target.name} does not link back to {page.name}")
    return problems


def check_site(folder: Path, word: str = "context token") -> list[str]:
    """Sentences about what is wrong; empty if all is well.

    Args:
        folder: of the site.
        word: what the search must find.
    """
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        return ["no browser here to open the pages with: install Chromium, or give --no-check"]
    folder = folder.resolve()  # a browser wants whole addresses
    problems = check_links(folder)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        context = browser.new_context(offline=True)
        page = context.new_page()
        where = ""
        page.on("request", lambda r: r.url.startswith(LOCAL)
                or problems.append(f"{where}: asks for {r.url}"))  # fmt: skip
        page.on("pageerror", lambda error: problems.append(f"{where}: {error}"))
        page.on("requestfailed", lambda r: r.url.startswith("file:")
                and problems.append(f"{where}: not there: {r.url}"))  # fmt: skip
        for file in sorted(folder.rglob("*.html")):
            where = str(file.relative_to(folder))
            page.goto(file.as_uri(), wait_until="load")
            problems += [f"{where}: {wrong}" for wrong in page.evaluate(LOOK)]
        where = "search"
        page.goto((folder / "search.html").as_uri() + "?q=" + word.replace(" ", "+"))
        try:
            page.wait_for_selector("#search-results li a", timeout=15000)
        except Exception:
            problems.append(f"the search does not find {word!r}")
        browser.close()
    return problems


if __name__ == "__main__":
    found = check_site(Path(sys.argv[1]))
    print("\n".join(found) or "all is well")
    sys.exit(bool(found))
