"""Measure the dashboard: `python -m web.measure` in `tests`. Its size, its first picture on a slow machine, and how long
after a change of state the page shows it.

Slow is Chromium with its processor slowed down six times, on top of whatever else this machine does.
"""

import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path

from web.conftest import Scene, chromium

SLOWER = 6
LOADS = 7
CHANGES = 20
PAINTED = "performance.getEntriesByName('first-contentful-paint').map(entry => entry.startTime)[0]"
WATCH = """() => {
  window.seen = [];
  new MutationObserver(() => {
    const phase = document.querySelector('.head .badge').textContent;
    if (!seen.length || seen.at(-1)[0] !== phase) seen.push([phase, Date.now()]);
  }).observe(document.querySelector('#main'), {subtree: true, childList: true, characterData: true});
}"""


def load(browser, url, slower):
    """Load the page anew; return bytes of its files as sent, ms to the first paint, and ms to the rollout's headline."""
    context = browser.new_context()
    page = context.new_page()
    answers = []
    page.on("response", lambda answer: answers.append(answer))
    context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slower})
    began = time.perf_counter()
    page.goto(url)
    page.wait_for_selector("#headline")
    whole = 1000 * (time.perf_counter() - began)
    painted = page.evaluate(PAINTED)
    sent = sum(one.request.sizes()["responseBodySize"] for one in answers if "/api/" not in one.url)
    context.close()
    return sent, painted, whole


def changes(browser, scene):
    """Pause and resume a run; return the ms from the moment noted in its history to the page's showing it."""
    scene.proxy.act("search", "start")
    page = browser.new_page()
    page.goto(f"{scene.url}/#/rollouts/search")
    page.wait_for_selector(".actions button:enabled")
    page.evaluate(WATCH)
    for number in range(CHANGES):
        scene.proxy.act("search", "resume" if number % 2 else "pause")
        page.wait_for_function("wanted => seen.length > wanted", arg=number)
    seen = page.evaluate("seen")
    entries = [one for one in scene.proxy.rollout("search")["history"] if one["kind"] == "phase"][-CHANGES:]
    page.close()
    return [at - 1000 * datetime.fromisoformat(one["at"]).timestamp() for (_, at), one in zip(seen, entries, strict=True)]


def told(name, values, unit):
    ordered = sorted(values)
    print(f"{name}: median {statistics.median(ordered):.0f} {unit}, least {ordered[0]:.0f}, most {ordered[-1]:.0f}")


def main():
    web = Path(__file__).parents[2] / "splitproxy/control/web"
    print(f"files: {sum(path.stat().st_size for path in web.iterdir())} bytes")
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        scene = Scene(Path(folder))
        try:
            for slower in (1, SLOWER):
                loads = [load(browser, scene.url, slower) for _ in range(LOADS)]
                print(f"--- processor slowed down {slower} times; sent: {loads[0][0]} bytes")
                told("first paint", [one[1] for one in loads], "ms")
                told("the rollout is there", [one[2] for one in loads], "ms")
            print("---")
            told("a change of state is seen after", changes(browser, scene), "ms")
        finally:
            scene.close()


if __name__ == "__main__":
    main()
