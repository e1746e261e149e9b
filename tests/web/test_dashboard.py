"""The dashboard in a real browser, before a real proxy."""

import json
import re

import pytest
from web.conftest import TOKENS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

expect = pytest.importorskip("playwright.sync_api", reason="needs playwright").expect
expect.set_options(timeout=30_000)

PAGES = ["#/rollouts/shop", "#/rollouts/search", "#/routes", "#/upstreams", "#/configuration"]
HEADLINE = "#headline"


def act(page, label, confirm=None):
    """Press the button of a verb and confirm."""
    page.get_by_role("button", name=re.compile(f"^{label}")).click()
    page.get_by_role("dialog").get_by_role("button", name=confirm or label, exact=True).click()


def at_rest(scene, name):
    """End whatever a test before has left."""
    if scene.proxy.rollout(name)["phase"] not in ("Initialized", "Failed", "Succeeded"):
        assert scene.proxy.act(name, "abort")[0] == 202
        scene.proxy.until_phase(name, "Failed")
    if "undo" in scene.proxy.rollout(name)["verbs"]:
        assert scene.proxy.act(name, "undo")[0] == 202


def shown(page):
    """Wait until the rollout is shown with its buttons."""
    page.wait_for_selector(".actions button:enabled")


def test_a_release_is_started_watched_paused_approved_and_undone(scene, open_page):
    at_rest(scene, "shop")
    page = open_page("#/rollouts/shop")
    shown(page)
    headline, badge = page.locator(HEADLINE), page.locator(".head .badge")

    act(page, "Start")
    expect(headline).to_have_text("shop-v2 gets 20 % of the requests.")
    expect(page.locator(".station[aria-current=step]")).to_contain_text("20 %")
    expect(page).to_have_title(re.compile("^shop: Progressing"))
    act(page, "Pause")
    expect(badge).to_have_text("Paused")
    expect(headline).to_have_text(re.compile(r"^Paused: shop-v2 keeps (20|50)\s%"))

    page.get_by_role("button", name=re.compile("^Set weight")).click()
    page.get_by_label("Percent of the requests").fill("12.5")
    page.get_by_role("dialog").get_by_role("button", name="Set").click()
    expect(page.locator(".split-side.to .split-share")).to_have_text("12.5 %")
    assert scene.proxy.rollout("shop")["canaryWeight"] == 12.5

    act(page, "Resume")
    expect(headline).to_have_text("shop-v2 has 50 % and waits for approval to be promoted.")
    expect(page.locator(".verdict.good")).to_have_count(2)
    assert page.locator(".station.done").count() == 2
    act(page, "Approve")
    expect(badge).to_have_text("Succeeded")
    expect(headline).to_have_text("shop-v2 has all requests: promoted.")
    expect(page.locator(".edit")).to_have_text("primary: shop-v2\ncanary: shop-v1")

    act(page, "Undo")
    expect(headline).to_have_text("Rolled back: shop-v1 has all requests again.")
    expect(page.locator(".runs .badge").first).to_have_text("Failed")
    said = [entry["text"] for entry in scene.proxy.rollout("shop")["history"] if entry["kind"] == "verb"]
    assert any("dashboard: pause" in text for text in said), said


def test_the_reason_of_a_rollback_is_there_to_read(scene, open_page):
    at_rest(scene, "search")
    page = open_page("#/rollouts/search")
    shown(page)
    scene.services["search-v2"].status = 503
    act(page, "Start")
    expect(page.locator(HEADLINE)).to_have_text("Rolled back: search-v1 has all requests again.")
    scene.services["search-v2"].status = 200
    expect(page.locator(".why")).to_contain_text("request-success-rate 0 % is below 99 %")
    expect(page.locator(".station.failed")).to_contain_text("30 %")
    expect(page.locator(".runs li").first).to_contain_text("is below 99 %")
    expect(page.get_by_role("img", name=re.compile(r"^Success rate\."))).to_have_attribute(
        "aria-label", re.compile(r"Limit: at least 99\s%\.")
    )
    expect(page.locator("#said")).to_contain_text("search is Failed")


def test_promotion_may_go_to_the_end_at_once(scene, open_page):
    at_rest(scene, "search")
    page = open_page("#/rollouts/search")
    shown(page)
    act(page, "Start")
    expect(page.locator(HEADLINE)).to_have_text("search-v2 gets 30 % of the requests.")
    page.get_by_role("button", name=re.compile("^Promote")).click()
    page.get_by_label("To the end").check()
    page.get_by_role("dialog").get_by_role("button", name="Promote").click()
    expect(page.locator(".head .badge")).to_have_text("Succeeded")
    assert scene.proxy.act("search", "undo")[0] == 202
    expect(page.locator(HEADLINE)).to_have_text("Rolled back: search-v1 has all requests again.")


def test_a_run_is_aborted_with_the_keyboard_alone(scene, open_page):
    at_rest(scene, "search")
    assert scene.proxy.act("search", "start")[0] == 202
    page = open_page("#/rollouts/search")
    expect(page.locator(HEADLINE)).to_have_text("search-v2 gets 30 % of the requests.")
    shown(page)

    def focused():
        return page.evaluate("document.activeElement.textContent")

    page.keyboard.press("Tab")
    assert focused() == "Skip to the content"
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    assert page.url.endswith("#/rollouts/search")
    for _ in range(40):
        if focused().startswith("Abort"):
            break
        page.keyboard.press("Tab")
    assert focused().startswith("Abort")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("All requests go back to search-v1 at once")
    assert focused() == "Cancel", "what cannot be taken back is not the first choice"
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert focused().startswith("Abort"), "the focus returns"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(HEADLINE)).to_have_text("Rolled back: search-v1 has all requests again.")
    expect(page.locator("#main")).to_be_focused()


def test_what_is_old_is_shown_as_old_and_comes_back_by_itself(scene, open_page):
    page = open_page("#/rollouts/shop", quiet=False)
    shown(page)
    page.context.set_offline(True)
    banner = page.locator("#banner")
    expect(banner.get_by_role("alert")).to_have_text("Connection lost.")
    expect(banner).to_contain_text(re.compile(r"Shown is what was true \d+\ss ago, at \d\d:\d\d:\d\d\."))
    expect(page).to_have_title(re.compile(r"^\(not live\)"))
    assert page.locator(".actions button:enabled").count() == 0
    assert "grayscale" in page.evaluate("getComputedStyle(document.querySelector('main')).filter")
    page.context.set_offline(False)
    expect(banner).to_be_empty()
    shown(page)

    scene.proxy.kill_control()
    expect(page.locator(".live")).to_have_text("Not live")
    expect(page.locator(".live")).to_have_text("Live")
    shown(page)


def test_a_refused_reload_is_told_with_its_errors(scene, open_page):
    page = open_page("#/configuration")
    page.get_by_role("button", name=re.compile("^Reload")).click()
    page.get_by_role("dialog").get_by_role("button", name="Reload").click()
    expect(page.locator(".toast")).to_contain_text("Nothing has changed")
    bad = {**scene.config, "workers": -1}
    assert scene.proxy.reload(bad)[0] == 422
    expect(page.locator(".result")).to_contain_text("The last reload was refused")
    expect(page.locator(".errors").first).to_contain_text("workers")
    expect(page.get_by_role("navigation", name="Sections")).to_contain_text("the last reload was refused")
    assert scene.proxy.reload(scene.config)[0] == 200
    expect(page.locator(".result")).not_to_contain_text("refused")


def test_routes_are_drawn_from_listener_to_upstream(scene, open_page):
    page = open_page("#/routes")
    picture = page.locator(".routes-picture")
    for text in (scene.proxy.listener.partition(":")[0], "shop · 0", "search-v2"):
        expect(picture).to_contain_text(text)
    expect(page.locator(".flow").first).to_be_attached()
    expect(page.get_by_role("row", name=re.compile("shop · 0"))).to_contain_text("shop.example.com")
    page.goto(f"{scene.url}/#/upstreams")
    expect(page.get_by_role("region", name="shop-v1")).to_contain_text(scene.services["shop-v1"].address)
    expect(page.get_by_role("region", name="shop-v1")).to_contain_text("in use")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (320, "dark")])
def test_nothing_keeps_anybody_out_or_scrolls_sideways(open_page, axe_source, width, scheme):
    page = open_page(PAGES[0], width=width, scheme=scheme, reduced_motion="reduce")
    page.evaluate(axe_source)
    for where in PAGES:
        page.evaluate("where => location.hash = where", where)
        expect(page.locator(f".detail[data-key='{where.split('/')[-1]}']")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, where
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        assert len(found["passes"]) > 10
        assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == [], where
    assert page.evaluate("document.getAnimations().filter(one => one.playState === 'running').length") == 0


def test_it_is_small_asks_nobody_else_and_runs_nothing_inline(scene, open_page):
    answers = []
    page = open_page()
    page.on("response", lambda answer: answers.append(answer))
    page.reload()
    shown(page)
    files = [answer for answer in answers if "/api/" not in answer.url]
    assert {re.match(r"https?://[^/]+", answer.url)[0] for answer in answers} == {scene.url}
    assert len(files) > 5
    assert sum(answer.request.sizes()["responseBodySize"] for answer in files) <= 100_000
    policy = next(answer for answer in files if answer.url == f"{scene.url}/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.locator("style, script:not([src]), [onclick]").count() == 0


def test_a_token_is_asked_for_and_kept_in_the_tab_alone(scene, open_page):
    locked = {**scene.config, "admin": {**scene.config["admin"], "tokens": TOKENS}}
    assert scene.proxy.reload(locked)[0] == 200
    bearer = {"Authorization": f"Bearer {TOKENS[1]['value']}"}
    try:
        page = open_page("#/rollouts/search", quiet=False)
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("A token is needed")
        for token in ("not this one at all", TOKENS[0]["value"]):
            page.get_by_role("textbox", name="Token").fill(token)
            page.get_by_role("button", name="Use it").click()
        shown(page)
        kept = page.evaluate("[JSON.stringify(sessionStorage), JSON.stringify(localStorage), document.cookie]")
        assert TOKENS[0]["value"] in kept[0]
        assert TOKENS[0]["value"] not in kept[1] + kept[2]

        act(page, "Start" if page.get_by_role("button", name=re.compile("^Start")).count() else "Retry")
        expect(page.locator(".toast")).to_contain_text("the token ann may only read")
        page.get_by_role("button", name="Forget token").click()
        expect(dialog).to_contain_text("A token is needed")
    finally:
        scene.proxy.config.write_text(json.dumps(scene.config))
        assert scene.proxy.ask("/-/reload", "POST", headers=bearer)[0] == 200
