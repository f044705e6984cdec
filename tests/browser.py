"""A headless Chromium driven through its own protocol: what a page asks for, what it complains about, how it looks."""

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str:
    """Returns the browser's path; a machine without one cannot say whether the page works, so that is an error."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    assert found, f"no browser: install one of {', '.join(NAMES)} (Debian: apt-get install chromium)"
    return found


@dataclass
class Visit:
    """What was seen: addresses asked for, complaints, the picture, and how wide the content came out."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    picture: bytes = b""
    content_width: int = 0


def visit(page: Path, *, width: int, height: int = 900, dark: bool = False) -> Visit:
    """Opens a local page and returns what came of it, with a picture of all of it."""
    with tempfile.TemporaryDirectory() as profile:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
        flags += ["--disable-background-networking", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            [find(), *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            port = _port(Path(profile) / "DevToolsActivePort", process)
            return asyncio.run(_talk(port, page.resolve().as_uri(), width, height, dark))
        finally:
            process.terminate()
            process.wait()


def _port(file: Path, process: subprocess.Popen) -> int:
    for _ in range(600):
        if file.is_file() and (text := file.read_text()):
            return int(text.splitlines()[0])
        assert process.poll() is None, "the browser ended by itself"
        time.sleep(0.05)
    raise AssertionError("the browser did not start")


async def _talk(port: int, address: str, width: int, height: int, dark: bool) -> Visit:
    from tornado.httpclient import AsyncHTTPClient
    from tornado.websocket import websocket_connect

    answer = await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/json")
    target = next(t for t in json.loads(answer.body) if t["type"] == "page")
    socket = await websocket_connect(target["webSocketDebuggerUrl"], max_message_size=1 << 28)
    seen, count, loaded = Visit(), 0, False

    async def call(method: str, **parameters):
        nonlocal count, loaded
        count += 1
        mine = count
        await socket.write_message(json.dumps({"id": mine, "method": method, "params": parameters}))
        while True:
            said = json.loads(await socket.read_message())
            if said.get("id") == mine:
                assert "error" not in said, said
                return said["result"]
            listen(said)

    def listen(said):
        nonlocal loaded
        name, body = said.get("method"), said.get("params", {})
        if name == "Network.requestWillBeSent":
            seen.requests.append(body["request"]["url"])
        elif name == "Log.entryAdded" and body["entry"]["level"] in ("warning", "error"):
            seen.complaints.append(body["entry"]["text"])
        elif name == "Runtime.exceptionThrown":
            seen.complaints.append(json.dumps(body["exceptionDetails"]))
        elif name == "Page.loadEventFired":
            loaded = True

    for domain in ("Page", "Network", "Log", "Runtime"):
        await call(f"{domain}.enable")
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    await call("Emulation.setEmulatedMedia", features=scheme)
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    await call("Emulation.setDeviceMetricsOverride", **size)
    await call("Page.navigate", url=address)
    while not loaded:
        listen(json.loads(await socket.read_message()))
    box = (await call("Page.getLayoutMetrics"))["cssContentSize"]
    seen.content_width = round(box["width"])
    shot = await call("Page.captureScreenshot", captureBeyondViewport=True, clip={**box, "x": 0, "y": 0, "scale": 1})
    seen.picture = base64.b64decode(shot["data"])
    socket.close()
    return seen
