"""Measure the dashboard: `python -m web.measure` in `tests`. Its size, its first picture on a slow machine, how long
after a change of state the page shows it, and the processor's time that it takes, which other programs do not lengthen.

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
STAY_SECONDS = 10
PAINTED = "performance.getEntriesByName('first-contentful-paint').map(entry => entry.startTime)[0]"
THERE = """new MutationObserver(() => {
  if (!window.there && document.getElementById('headline')) window.there = performance.now();
}).observe(document, {subtree: true, childList: true})"""
WATCH = """() => {
  const phase = () => document.querySelector('.head .badge').textContent;
  let last = phase();
  window.seen = [];
  new MutationObserver(() => {
    if (phase() !== last) seen.push([last = phase(), Date.now()]);
  }).observe(document.querySelector('#main'), {subtree: true, childList: true, characterData: true});
}"""


def load(browser, url, slower):
    """Load the page anew; return bytes of its files as sent, ms to the first paint and to the rollout's headline, and
    the ms of processor time up to there.
    """
    context = browser.new_context()
    page = context.new_page()
    answers = []
    page.on("response", lambda answer: answers.append(answer))
    page.add_init_script(THERE)
    tools = context.new_cdp_session(page)
    tools.send("Emulation.setCPUThrottlingRate", {"rate": slower})
    tools.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(url, wait_until="commit")
    while (whole := page.evaluate("window.there")) is None:
        page.wait_for_timeout(50)
    spent, painted = busy(tools), page.evaluate(PAINTED)
    sent = sum(one.request.sizes()["responseBodySize"] for one in answers if "/api/" not in one.url)
    context.close()
    return sent, painted, whole, spent


def busy(tools):
    """Return the ms of processor time that the page's main thread has taken."""
    metrics = tools.send("Performance.getMetrics")["metrics"]
    return 1000 * next(one["value"] for one in metrics if one["name"] == "TaskDuration")


def staying(browser, scene):
    """Return the ms of processor time that a page takes each second while it shows a run."""
    page = browser.new_page()
    tools = page.context.new_cdp_session(page)
    tools.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(f"{scene.url}/#/rollouts/search")
    page.wait_for_selector(".actions button:enabled")
    spent, began = busy(tools), time.monotonic()
    page.wait_for_timeout(STAY_SECONDS * 1000)
    each = (busy(tools) - spent) / (time.monotonic() - began)
    page.close()
    return each


def changes(browser, scene):
    """Pause and resume a run; return the ms from the moment noted in its history to the page's showing it."""
    scene.proxy.act("search", "start")
    page = browser.new_page()
    page.goto(f"{scene.url}/#/rollouts/search")
    page.locator(".head .badge", has_text="Progressing").wait_for()
    page.evaluate(WATCH)
    for number in range(CHANGES):
        scene.proxy.act("search", "resume" if number % 2 else "pause")
        page.wait_for_function("wanted => seen.length > wanted", arg=number)
    seen = page.evaluate("seen")
    entries = [one for one in scene.proxy.rollout("search")["history"] if one["kind"] == "phase"][-CHANGES:]
    page.close()
    return [
        at - 1000 * datetime.fromisoformat(one["at"]).timestamp() for (_, at), one in zip(seen, entries, strict=True)
    ]


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
                told("processor time of the page until then", [one[3] for one in loads], "ms")
            print("---")
            told("a change of state is seen after", changes(browser, scene), "ms")
            told("processor time of the page while it is open", [staying(browser, scene)], "ms a second")
        finally:
            scene.close()


if __name__ == "__main__":
    main()
