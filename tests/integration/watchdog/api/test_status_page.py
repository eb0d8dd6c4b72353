"""The status page in a real browser: enter, read, search, pause, roll back, on a desk and on a phone."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import pytest

from integration.browser import PROGRAM, Browser
from integration.watchdogs import Watchdog, free_port
from integration.world import SOURCE, World
from kit import deadline

NASTY = "<script>window.owned=1</script><img src=x onerror='window.owned=1'>\x1b[31m"
ENTER = "(document.getElementById('token').value = {token}, document.querySelector('form').submit(), true)"
WELL = "document.querySelector('h1') && document.querySelector('h1').textContent"


@pytest.fixture
def served(monkeypatch):
    port = free_port()
    world = World(monkeypatch, {"watchdog": {"listen": f"127.0.0.1:{port}"}, "offline": {"after": "1m"},
                                "probation": {"duration": "0s", "heartbeats": 1, "tries": 1}}).adopt()  # fmt: skip
    world.start()
    world.until_beating(1)
    watchdog = Watchdog(world, port).start()
    yield watchdog
    watchdog.kill()
    world.end()


def token(watchdog, scope: str) -> str:
    code = "import sys; from agentctl.cli.main import main; sys.exit(main())"
    argv = [sys.executable, "-c", code, "--name", watchdog.world.name, "token", "create", "--scope", scope]
    return deadline.run(argv, capture_output=True, text=True, check=True,
                        env={**os.environ, "PYTHONPATH": SOURCE}).stdout.strip()  # fmt: skip


def test_the_page_in_a_real_browser(served, tmp_path):
    if PROGRAM is None:
        if os.environ.get("CI"):
            pytest.fail("required in CI: a Chromium", pytrace=False)
        pytest.skip("NO BROWSER: apt-get install chromium")
    world = served.world
    last = world.launches()[-1]["id"]
    world.commit({"note.txt": "a second version"})
    served.ask("POST", "/restart", {})
    world.until_beating(2, after=last)
    world.until(lambda: world.status_of(2) == "good", "a generation to go back from")
    said = {"id": "nasty", "role": "user", "content": f"{NASTY} needle sk-abcdefghijklmnop0123"}
    assert served.ask("POST", "/history", said).status == 200
    served.until_state("well")
    asyncio.run(look(served, tmp_path))
    world.until(lambda: world.rungs()[-1:] == [("by hand", 1)], "the rollback by the page")
    world.until_outcome("recovered")


async def look(served, folder) -> None:
    url = f"http://127.0.0.1:{served.port}/"
    name = served.world.name
    async with Browser(folder) as browser:
        await browser.go(url, "document.getElementById('token')")
        await browser.run(ENTER.format(token=json.dumps("wrong")))
        await browser.until("document.querySelector('[role=alert]')")
        assert name not in await browser.run("document.cookie")
        await browser.run(ENTER.format(token=json.dumps(token(served, "read"))))
        await browser.until("document.getElementById('live')")
        assert await browser.run("document.querySelector('.acts')") is None
        await browser.run("document.querySelector('footer button').click()")
        await browser.until("document.getElementById('token')")
        await browser.run(ENTER.format(token=json.dumps(token(served, "admin"))))
        await browser.until("document.querySelector('.acts')")
        await read_it(browser, url, name)
        await renew_it(browser, served)
        await search_it(browser, url)
        await on_a_phone(browser, url)
        await act(browser, url)
        assert {request.split("?")[0] for request in browser.requests} <= {
            url,
            *(url + part for part in ("page.css", "page.js", "icon.svg", "session", "session/end", "act", "plan")),
        }
        complaints = [c for c in browser.complaints if "403" not in c]
        assert complaints == []


async def read_it(browser, url: str, name: str) -> None:
    """It says how the agent is, and what an agent said stays text."""
    assert await browser.run(WELL) == f"{name} is well"
    assert await browser.run("document.querySelectorAll('svg rect').length") >= 1
    assert await browser.run("document.querySelectorAll('section h2').length") >= 5
    assert "starting" in await browser.run("document.getElementById('pane').textContent")
    assert len(await browser.picture("desk.png")) > 5000
    await browser.go(url + "?q=needle", "document.querySelectorAll('article').length === 1")
    text = await browser.run("document.getElementById('conversation').textContent")
    assert "<script>window.owned=1</script>" in text and "\x1b" not in text
    assert "sk-abcdefghijklmnop0123" not in text and "[masked]" in text
    assert await browser.run("window.owned === undefined && document.images.length === 0")


async def renew_it(browser, served) -> None:
    """It follows the agent without being loaded again."""
    await browser.run("document.documentElement.dataset.mark = 'same'")
    served.ask("POST", "/pause", {"for": "2h"})
    await browser.until("document.querySelector('#live').textContent.includes('paused')")
    assert await browser.run("document.documentElement.dataset.mark") == "same"
    served.ask("POST", "/resume", {})


async def search_it(browser, url: str) -> None:
    assert await browser.run("document.getElementById('q').value") == "needle"
    await browser.go(url + "?q=haystack", "document.querySelectorAll('article').length === 0")
    for span in ("week", "month"):
        await browser.go(url + f"?span={span}", f"document.querySelector('b').textContent === '{span}'")


async def on_a_phone(browser, url: str) -> None:
    """Nothing is wider than the screen, and what is tapped is large enough."""
    await browser.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    await browser.go(url, "document.querySelector('.acts')")
    assert await browser.run("document.documentElement.scrollWidth") <= 360
    heights = "[...document.querySelectorAll('.acts button')].map(b => b.offsetHeight)"
    assert await browser.run(f"Math.min(...{heights})") >= 40
    assert len(await browser.picture("phone.png")) > 5000
    await browser.call("Emulation.clearDeviceMetricsOverride")


async def act(browser, url: str) -> None:
    """Pause by its button; a rollback shows its plan first."""
    await browser.until("document.querySelector('button[value=pause]')")  # the watchdog looks every second or two
    await browser.run("document.querySelector('button[value=pause]').click()")
    await browser.until("document.querySelector('button[value=resume]')")
    await browser.run("document.querySelector('button[value=resume]').click()")
    await browser.until("document.querySelector('button[value=pause]')")
    await browser.run("document.querySelector('a[href=\"/plan\"]').click()")
    await browser.until("document.querySelector('button.danger')")
    told = await browser.run("document.querySelector('main').textContent")
    assert "a second version" in told or "to generation1" in told
    await browser.run("document.querySelector('button.danger').click()")
    await browser.until("document.getElementById('live')")


def test_without_a_script_and_without_a_session(served):
    """A browser gets no data without a token, and a form of another page does nothing."""
    from integration.watchdogs import ask

    answer = ask(served.port, "GET", "/")
    assert answer.status == 200 and b'id="token"' in answer.body and b"heartbeat" not in answer.body
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    entered = ask(served.port, "POST", "/session", f"token={token(served, 'admin')}", **form, Origin="http://127.0.0.1")
    assert entered.status == 403
    entered = ask(served.port, "POST", "/session", f"token={token(served, 'admin')}", **form,
                  Origin=f"http://127.0.0.1:{served.port}")  # fmt: skip
    cookie = entered.headers["Set-Cookie"]
    assert entered.status == 303 and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    session = {"Cookie": cookie.split(";")[0]}
    assert ask(served.port, "POST", "/act", "verb=pause", **form, **session).status == 403
    assert ask(served.port, "POST", "/act", "verb=pause", **form, **session, Origin="http://evil").status == 403
    assert ask(served.port, "GET", "/plan", **session).status in (200, 409)
