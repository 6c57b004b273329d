"""The quickstart as a new user meets it: JupyterLab in a real browser, run all, look at what is there."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import nbformat
import pytest
import short

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
TOKEN = "opened-by-a-test"
HEIGHT = 6500  # so tall that every cell is on the page at once


class Page:
    """One tab of a headless Chromium, driven by the DevTools protocol."""

    def __init__(self, address: str) -> None:
        import websocket

        self._socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        self._count = 0
        self.complaints: list[str] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("method") == "Runtime.exceptionThrown":
                self.complaints.append(str(answer["params"]["exceptionDetails"].get("text")))
            if answer.get("id") == self._count:
                assert "error" not in answer, answer["error"]
                found: dict[str, Any] = answer["result"]
                return found

    def value(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait(self, expression: str, what: str, seconds: float = 60) -> Any:
        """The expression's value once it is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.value(expression)
            if found:
                return found
            time.sleep(0.3)
        raise AssertionError(f"waited {seconds:.0f} s for {what}")

    def click(self, element: str) -> None:
        """Click the middle of the element that the expression gives, as a hand would."""
        self.wait(f"!!({element})", f"something to click: {element}")
        place = self.value(f"(() => {{const r = ({element}).getBoundingClientRect();"
                           "return [r.x + r.width / 2, r.y + r.height / 2]})()")  # fmt: skip
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        self._socket.close()


def wait_for_file(folder: Path, pattern: str, process: subprocess.Popen[bytes], seconds: float = 60) -> Path:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, f"{process.args} ended with {process.returncode}"
        found = [path for path in folder.glob(pattern) if path.stat().st_size]
        if found:
            return found[0]
        time.sleep(0.2)
    raise AssertionError(f"no {pattern} in {folder} after {seconds:.0f} s")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """JupyterLab on a copy of the notebooks: its address and the copy's folder."""
    work = tmp_path / "kit"
    shutil.copytree(ROOT / "notebooks", work / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    runtime = tmp_path / "runtime"
    places = {name: str(tmp_path / name.lower()) for name in
              ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")}  # fmt: skip
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root",
               f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={work}"]  # fmt: skip
    environment = os.environ | places | {"JUPYTER_RUNTIME_DIR": str(runtime), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = short.keep(tmp_path)  # few epochs: what is looked at is the same
    environment.pop("JPY_SESSION_NAME", None)
    with (tmp_path / "lab.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=work)
        try:
            server = json.loads(wait_for_file(runtime, "jpserver-*.json", process).read_text())
            yield server["url"], work
        finally:
            stop(process)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """An empty tab of a fresh browser, 1,250 pixels wide."""
    profile = tmp_path / "profile"
    flags = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
             "disable-component-update", "disable-sync", "remote-debugging-port=0"]  # fmt: skip
    flags.append(f"user-data-dir={profile}")
    with (tmp_path / "chromium.log").open("wb") as log:
        process = subprocess.Popen([str(CHROMIUM), *(f"--{f}" for f in flags), "about:blank"], stdout=log, stderr=log)
        try:
            port = wait_for_file(profile, "DevToolsActivePort", process).read_text().split()[0]
            tabs = json.loads(urlopen(f"http://127.0.0.1:{port}/json").read())
            tab = Page(next(t["webSocketDebuggerUrl"] for t in tabs if t["type"] == "page"))
            tab.call("Runtime.enable")
            tab.call("Emulation.setDeviceMetricsOverride", width=1250, height=HEIGHT, deviceScaleFactor=1, mobile=False)
            yield tab
            tab.close()
        finally:
            stop(process)


PROMPTS = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(p => p.textContent).filter(t => t)"
LOOK = """(() => {
    const all = (query) => [...document.querySelectorAll('.jp-OutputArea-output ' + query)];
    const kind = (name) => [...document.querySelectorAll(`[data-mime-type="application/vnd.jupyter.${name}"]`)];
    return {
        errors: kind('error').map(e => e.textContent),
        warnings: kind('stderr').map(e => e.textContent),
        pictures: all('img').map(i => i.naturalWidth),
        widest: Math.max(...all('img').map(i => i.width / i.parentElement.clientWidth)),
        bars: all('.jupyter-widgets.widget-hbox').map(e => e.innerText),
    }
})()"""


def test_a_newcomer_opens_the_quickstart_runs_all_and_sees_pictures(
    lab: tuple[str, Path], page: Page, tmp_path: Path
) -> None:
    address, work = lab
    path = work / "notebooks" / "quickstart.ipynb"
    page.call("Page.navigate", url=f"{address}lab/tree/notebooks/quickstart.ipynb?token={TOKEN}")
    page.wait("document.querySelectorAll('.jp-CodeCell').length > 5", "the notebook's cells")
    page.wait("document.querySelector('.jp-NotebookPanel .jp-Notebook-ExecutionIndicator')?.dataset.status == 'idle'",
              "an idle kernel")  # fmt: skip
    page.click("[...document.querySelectorAll('.lm-MenuBar-itemLabel')].find(e => e.textContent == 'Run')")
    page.click("document.querySelector('.lm-Menu-item[data-command=\"runmenu:run-all\"]')")
    try:
        # a cell that waits or runs has a star; after an error those behind it have none, and no number either
        finished = f"{PROMPTS}.some(p => /\\d/.test(p)) && !{PROMPTS}.some(p => p.includes('*'))"
        page.wait(finished, "every cell to have run", seconds=500)
        time.sleep(1)
    finally:
        page.picture(tmp_path / "quickstart.png")

    seen = page.value(LOOK)
    assert seen["errors"] == []
    assert page.value(f"{PROMPTS}.every(p => /\\d/.test(p))"), "a cell did not run"
    assert seen["warnings"] == []
    assert len(seen["pictures"]) >= 6
    assert min(seen["pictures"]) > 300
    assert seen["widest"] <= 1, "a picture is wider than the page"
    bars = [" ".join(text.split()) for text in seen["bars"]]
    assert len(bars) == 6, "a bar of cycles a run is left, the bars of epochs are gone"
    assert all("5/5" in bar and "accuracy" in bar for bar in bars), bars
    assert page.complaints == []

    before = path.stat().st_mtime
    page.call("Input.dispatchKeyEvent", type="keyDown", key="s", code="KeyS", windowsVirtualKeyCode=83, modifiers=2)
    end = time.monotonic() + 30
    while path.stat().st_mtime == before:
        assert time.monotonic() < end, "the notebook was not saved"
        time.sleep(0.2)
    saved = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in saved.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
