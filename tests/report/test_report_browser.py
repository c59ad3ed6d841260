"""The page in a real browser: nothing on the console, and no request. Skipped where there is no Chromium."""

import json
import shutil
import subprocess

import pytest

from bptt.report.html import html_report
from oracles import diagnoses

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-sync", "--disable-component-update", "--disable-default-apps", "--disable-extensions",
    "--enable-logging=stderr", "--virtual-time-budget=2000", "--disable-features=NetworkTimeServiceQuerying",
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _browser(tmp_path_factory):
    """A machine may have a Chromium that cannot start in it: that says nothing of our pages."""
    if BROWSER is None:
        pytest.skip("no Chromium on the PATH: make browser")
    profile = tmp_path_factory.mktemp("profile")
    command = [BROWSER, *QUIET, f"--user-data-dir={profile}", "--dump-dom", "data:text/html,<title>up</title>"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{BROWSER} does not answer")
    if "<title>up</title>" not in done.stdout:
        pytest.skip(f"{BROWSER} does not start here")


def look(page, folder):
    """The document as the browser has it, what it says on its console, and the addresses that the document asks for."""
    log = folder / "net.json"
    command = [
        BROWSER,
        *QUIET,
        f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={log}",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    text = log.read_text()
    events = json.loads(text if text.rstrip().endswith("}") else text.rstrip().rstrip(",") + "]}")["events"]
    requests = [event["params"] for event in events if {"url", "initiator"} <= event.get("params", {}).keys()]
    own = ("not an origin",)  # of the browser itself: the page that it opens, and what it asks its maker
    asked = [one["url"] for one in requests if one["initiator"] not in own and not one["url"].startswith("data:")]
    return done.stdout, console, asked


def test_a_browser_shows_the_page_without_a_word_and_without_a_request(tmp_path):
    page = tmp_path / "x.html"
    page.write_text(html_report(diagnoses.full(20)))
    dom, console, asked = look(page, tmp_path)
    assert dom.count("<svg ") > 12
    assert console == []
    assert asked == []


def test_what_this_test_looks_for_is_found_where_it_is(tmp_path):
    page = tmp_path / "x.html"
    page.write_text(
        "<!doctype html><title>x</title><img src='http://127.0.0.1:9/x.png'><script>console.error('hm')</script>"
    )
    _, console, asked = look(page, tmp_path)
    assert any("hm" in line for line in console)
    assert any("127.0.0.1:9" in url for url in asked)
