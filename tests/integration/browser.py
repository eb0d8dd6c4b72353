"""A real browser, driven by its own debugging protocol: Chromium, headless."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import aiohttp

from kit import deadline

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_SECONDS = 60.0


class Browser:
    """One page of one browser; use it with `async with`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._answers: dict[int, asyncio.Future] = {}
        self._number = 0

    async def __aenter__(self) -> Browser:
        argv = [PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
                f"--user-data-dir={self.folder}/profile", "about:blank"]  # fmt: skip
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,  # noqa: ASYNC220 - nobody waits
                                        env={**os.environ, "HOME": str(self.folder)})  # fmt: skip
        port_file = self.folder / "profile/DevToolsActivePort"
        port = await self._until(lambda: port_file.exists() and port_file.read_text().split(), "the browser")
        self.http = aiohttp.ClientSession()
        pages = []
        while not pages:
            async with self.http.get(f"http://127.0.0.1:{port[0]}/json/list") as answer:
                pages = [page for page in await answer.json() if page["type"] == "page"]
        self.socket = await self.http.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)
        self._reader = asyncio.create_task(self._read())
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{domain}.enable")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reader.cancel()
        await self.socket.close()
        await self.http.close()
        self.process.terminate()
        with contextlib.suppress(TimeoutError):  # it is killed then
            deadline.wait(self.process, timeout=PATIENCE_SECONDS)

    async def call(self, method: str, **parameters):
        """Call a method of the protocol; return its result."""
        self._number += 1
        future = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self.socket.send_str(json.dumps({"id": self._number, "method": method, "params": parameters}))
        return await asyncio.wait_for(future, PATIENCE_SECONDS)

    async def run(self, script: str):
        """Return what a script of the page says."""
        found = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def go(self, url: str, shows: str = "document.readyState === 'complete'") -> None:
        """Open a page and wait until it shows what is asked for."""
        await self.call("Page.navigate", url=url)
        await self.until(f"location.href.startsWith({json.dumps(url)}) && ({shows})")

    async def until(self, script: str):
        """Wait until a script says something true; a page that makes way for another one meanwhile says nothing."""
        guarded = f"(() => {{ try {{ return !!({script}) }} catch (e) {{ return false }} }})()"

        async def look() -> bool:
            found = await self.call("Runtime.evaluate", expression=guarded, returnByValue=True)
            return "exceptionDetails" not in found and found["result"].get("value")

        return await self._until(look, script)

    async def picture(self, name: str) -> bytes:
        """Take a picture, in the test's own folder."""
        data = base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])
        (self.folder / name).write_bytes(data)
        return data

    async def _until(self, is_true, what: str):
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while True:
            found = is_true()
            found = await found if asyncio.iscoroutine(found) else found
            if found:
                return found
            assert asyncio.get_running_loop().time() < deadline, f"waited in vain for {what}"
            await asyncio.sleep(0.05)

    async def _read(self) -> None:
        async for message in self.socket:
            found = json.loads(message.data)
            if "id" in found:
                future = self._answers.pop(found["id"])
                if not future.done():
                    future.set_result(found.get("result", {"exceptionDetails": found.get("error")}))
            elif found["method"] == "Network.requestWillBeSent":
                self.requests.append(found["params"]["request"]["url"])
            elif found["method"] == "Log.entryAdded":
                self.complaints.append(found["params"]["entry"]["text"])
