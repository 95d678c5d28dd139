"""A real JupyterLab and Notebook 7 in headless Chromium, for the tests of the widgets.

    def test_it(lab):
        book = lab.open(["from stage_widgets import StemMixer", "mixer = ...; mixer"])
        book.run_all()
        book.widget("Stems").get_by_role("button", name="Play").click()
        assert book.python("mixer.playing") is True     # in the kernel
        book.screenshot("mixer")                        # out/browser/mixer.png
        assert book.axe() == []

`lab` is one server for all tests of a process. Each test gets its own notebook and kernel, both
gone at its end. Where no browser is found the tests skip and say so. The fixtures are known to
every test through conftest.py. `page` is a blank page for JavaScript that needs no notebook.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "out" / "browser"  # git-ignored
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Quiet, and audio without a click of a person only where a test asks for it.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-quic", "--disable-default-apps", "--use-fake-ui-for-media-stream",
         "--use-fake-device-for-media-stream"]  # fmt: skip
PATIENCE_S = 180  # for a machine that is busy with other things
LAB_SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}


def find_browser() -> str | None:
    """Path of an installed Chromium or Chrome; STAGE_BROWSER names another."""
    return os.environ.get("STAGE_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)


def node() -> str:
    """Path of node, or skip."""
    return shutil.which("node") or pytest.skip("no node here: apt-get install nodejs")


def require_browser() -> tuple[Any, str]:
    """playwright and the path of a browser, or skip."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here")
    return playwright, find_browser() or pytest.skip("no browser here: apt-get install chromium")


# Of a module, not of the session: playwright keeps an event loop running, which other tests that
# use asyncio in the same process would trip over.
@pytest.fixture(scope="module")
def chromium():
    """A headless browser, or skip."""
    playwright, path = require_browser()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A blank page on an origin of its own; `page.problems` collects errors of the console."""
    context = chromium.new_context(viewport={"width": 900, "height": 700})
    page = context.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    yield page
    context.close()


@pytest.fixture(scope="session")
def lab_server(tmp_path_factory):
    """One Jupyter server, with JupyterLab and, if it is installed, Notebook 7."""
    require_browser()
    pytest.importorskip("jupyterlab", reason="no JupyterLab here")
    server = Server(tmp_path_factory.mktemp("lab"))
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture
def lab(chromium, lab_server):
    """Opens notebooks: `lab.open(cells)` -> Notebook. See the top of this file."""
    opened = Lab(chromium, lab_server)
    yield opened
    opened.close()


class Server:
    """Jupyter on a free port, with a folder, settings and a runtime of its own."""

    def __init__(self, home: Path):
        self.home, self.token = home, secrets.token_hex(16)
        self.folder = home / "notebooks"
        (home / "settings").mkdir(parents=True)
        self.folder.mkdir()
        (home / "path").mkdir()
        (home / "path" / "stage_widgets").symlink_to(ROOT / "widgets")
        (home / "settings" / "overrides.json").write_text(json.dumps(LAB_SETTINGS))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.runtime = home / "runtime"
        environment = {
            **os.environ,
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_RUNTIME_DIR": str(self.runtime),
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            "JUPYTERLAB_SETTINGS_DIR": str(home / "user-settings"),
            "IPYTHONDIR": str(home / "ipython"),
            "PYTHONPATH": os.pathsep.join([str(home / "path"), str(ROOT)]),
            "PYTHONWARNINGS": "ignore",
        }
        self.log = home / "server.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
                 f"--port={self.port}", "--ServerApp.port_retries=0",
                 f"--ServerApp.root_dir={self.folder}", f"--IdentityProvider.token={self.token}",
                 "--LabApp.expose_app_in_browser=True",
                 "--JupyterNotebookApp.expose_app_in_browser=True",
                 f"--LabApp.app_settings_dir={home / 'settings'}"],
                env=environment, cwd=home, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def ask(self, path: str, method: str = "GET") -> Any:
        """One call of the server's REST API."""
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method)
        request.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def wait(self) -> None:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if self.process.poll() is not None:
                pytest.fail(f"JupyterLab did not start:\n{self.log.read_text()[-2000:]}")
            try:
                self.ask("status")
                return
            except OSError:
                time.sleep(0.2)
        pytest.fail(f"JupyterLab did not answer in {PATIENCE_S} s")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Lab:
    """Notebooks of one test."""

    def __init__(self, browser: Any, server: Server):
        self.browser, self.server, self.books = browser, server, []

    def open(
        self,
        cells: list[str] | None,
        name: str = "test",
        *,
        front: str = "lab",
        dark: bool = False,
        width: int = 1300,
        height: int = 1000,
    ) -> Notebook:
        """Write a notebook of code cells and open it; cells=None opens the one that is there.

        Args:
            front: "lab" or "notebook" (Notebook 7; skips where it is not installed).
            width, height: of the browser's window, in CSS pixels.
        """
        if front == "notebook":
            pytest.importorskip("notebook", minversion="7", reason="no Notebook 7 here")
        path = self.server.folder / f"{name}.ipynb"
        if cells is not None:
            import nbformat.v4 as v4

            metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
            book = v4.new_notebook(cells=[v4.new_code_cell(c) for c in cells], metadata=metadata)
            path.write_text(json.dumps(book))
        opened = Notebook(self, path, front, dark, (width, height))
        self.books.append(opened)
        return opened

    def close(self) -> None:
        for book in self.books:
            book.close()
        for session in self.server.ask("sessions"):
            self.server.ask(f"sessions/{session['id']}", "DELETE")


class Notebook:
    """An open notebook.

    Attributes:
        page: playwright's page.
        problems: console errors of the widgets, and requests that left this machine.
    """

    def __init__(self, lab: Lab, path: Path, front: str, dark: bool, size: tuple[int, int]):
        self.lab, self.path, self.front, self._client = lab, path, front, None
        self.context = lab.browser.new_context(viewport={"width": size[0], "height": size[1]})
        self.page = page = self.context.new_page()
        page.set_default_timeout(1000 * PATIENCE_S)
        self.problems: list[str] = []
        page.on("pageerror", self._check_page)
        page.on("request", self._check_request)
        page.on("console", self._check_console)
        place = "lab/tree" if front == "lab" else "notebooks"
        reset = "&reset" if front == "lab" else ""
        page.goto(f"{lab.server.url}/{place}/{path.name}?token={lab.server.token}{reset}")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.wait_for_function("window.jupyterapp && window.jupyterapp.commands")
        if dark:
            self.command("apputils:change-theme", theme="JupyterLab Dark")
            page.wait_for_selector("body[data-jp-theme-light=false]", state="attached")
        self._wait_for_kernel()

    def _check_request(self, request: Any) -> None:
        ours = (self.lab.server.url, self.lab.server.url.replace("http", "ws"), "data:", "blob:")
        if not request.url.startswith(ours):
            self.problems.append(f"asked for {request.url[:200]}")

    def _check_page(self, error: Any) -> None:
        if "blob:" in (
            error.stack or ""
        ):  # anywidget's modules; the front end has errors of its own
            self.problems.append(f"page: {error}")

    def _check_console(self, message: Any) -> None:
        if message.type == "error" and ("stage" in message.text or "anywidget" in message.text):
            self.problems.append(f"console: {message.text[:300]}")

    # --- the front end -------------------------------------------------------------------------

    def command(self, name: str, **arguments: Any) -> None:
        """Run a command of JupyterLab's palette by its id."""
        self.page.evaluate(
            "([name, args]) => { window.jupyterapp.commands.execute(name, args); }",
            [name, arguments],
        )

    def run_all(self, timeout_s: float = PATIENCE_S) -> Notebook:
        """Run all cells and wait until all have run; an error of a cell fails the test."""
        self.start_all()
        self.wait_for_idle(timeout_s)
        errors = self.errors()
        assert not errors, errors
        return self

    def start_all(self) -> None:
        """Run all cells without waiting."""
        self.page.evaluate("window.__ran = 0")
        self.page.evaluate(
            "() => { window.__ran = 1; window.jupyterapp.commands.execute('notebook:run-all-cells')"
            ".finally(() => { window.__ran = 2; }); }"
        )

    def wait_for_idle(self, timeout_s: float = PATIENCE_S) -> None:
        self.page.wait_for_function("window.__ran === 2", timeout=1000 * timeout_s)

    def errors(self) -> list[str]:
        """Tracebacks that cells show."""
        return self.page.locator('.jp-OutputArea-output[data-mime-type*="error"]').all_inner_texts()

    def output(self, i: int) -> Any:
        """Locator of the output of code cell i, from 0."""
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(i).locator(".jp-OutputArea").first

    def widget(self, label: str | None = None, nth: int = 0) -> Any:
        """Locator of a widget that has been built; by its label, or the nth of all."""
        name = f'[aria-label="{label}"]' if label else ""
        found = self.page.locator(f".stage-widget[data-ready]{name}").nth(nth)
        found.wait_for(state="attached")
        found.scroll_into_view_if_needed()
        return found

    def screenshot(self, name: str, of: Any = None) -> Path:
        """Keep a picture of the page, or of one locator, in out/browser/."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        file = PICTURES / f"{name}.png"
        (of or self.page).screenshot(path=file)
        return file

    def axe(self, inside: str = ".stage-widget") -> list[str]:
        """Serious and critical accessibility faults that axe finds in the widgets."""
        return axe(self.page, inside)

    def save(self) -> dict:
        """Save as a person does; the notebook as it is on disk."""
        before = self.path.stat().st_mtime_ns
        self.command("docmanager:save")
        until = time.monotonic() + PATIENCE_S
        while self.path.stat().st_mtime_ns == before and time.monotonic() < until:
            self.page.wait_for_timeout(100)
        self.page.wait_for_timeout(300)
        return json.loads(self.path.read_text())

    def reload(self) -> None:
        """Load the page again, kernel alive; unsaved changes are lost."""
        self.page.on("dialog", lambda dialog: dialog.accept())
        self.page.reload()
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self._wait_for_kernel()

    # --- the kernel ----------------------------------------------------------------------------

    def _wait_for_kernel(self) -> None:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            for session in self.lab.server.ask("sessions"):
                kernel = session["kernel"]
                if session["path"] == self.path.name and kernel["execution_state"] == "idle":
                    self.kernel_id = kernel["id"]
                    return
            self.page.wait_for_timeout(150)
        pytest.fail("the notebook's kernel did not come up")

    def python(self, expression: str, timeout_s: float = PATIENCE_S) -> Any:
        """The value of an expression in the notebook's kernel, by way of JSON."""
        text = self._execute("", {"value": f"__import__('json').dumps({expression})"}, timeout_s)
        value = text["user_expressions"]["value"]
        assert value["status"] == "ok", f"{expression}: {value.get('evalue')}"
        import ast

        return json.loads(ast.literal_eval(value["data"]["text/plain"]))

    def run(self, code: str, timeout_s: float = PATIENCE_S) -> None:
        """Run statements in the notebook's kernel, as another cell would."""
        answer = self._execute(code, {}, timeout_s)
        assert answer["status"] == "ok", answer

    def wait_for(self, expression: str, value: Any = True, timeout_s: float = 60) -> None:
        """Until an expression in the kernel has a value."""
        until = time.monotonic() + timeout_s
        while (now := self.python(expression)) != value:
            assert time.monotonic() < until, f"{expression} is {now!r}; expected {value!r}"
            self.page.wait_for_timeout(100)

    def _execute(self, code: str, expressions: dict[str, str], timeout_s: float) -> dict:
        if self._client is None:
            from jupyter_client import BlockingKernelClient

            file = self.lab.server.runtime / f"kernel-{self.kernel_id}.json"
            self._client = BlockingKernelClient(connection_file=str(file))
            self._client.load_connection_file()
            self._client.start_channels()
            self._client.wait_for_ready(timeout=timeout_s)
        client = self._client
        request = client.execute(
            code, silent=False, store_history=False, user_expressions=expressions
        )
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            # The page's own events go on meanwhile.
            self.page.wait_for_timeout(5)
            try:
                answer = client.get_shell_msg(timeout=0.2)
            except Exception as error:
                if type(error).__name__ != "Empty":
                    raise
                continue
            if answer["parent_header"].get("msg_id") == request:
                return answer["content"]
        pytest.fail(f"the kernel did not answer {code or expressions} in {timeout_s} s")

    def restart_kernel(self) -> None:
        """Restart the kernel behind the notebook, as the menu does."""
        if self._client:
            self._client.stop_channels()
            self._client = None
        self.command("kernelmenu:restart")
        self.page.locator(".jp-Dialog button.jp-mod-accept").click()
        self.page.wait_for_timeout(500)
        self._wait_for_kernel()

    def close(self) -> None:
        """How the page looked at last stays as out/browser/<notebook>_end.png."""
        if self._client:
            self._client.stop_channels()
        self.screenshot(f"{self.path.stem}_end")
        self.context.close()


def axe(page: Any, inside: str = ".stage-widget") -> list[str]:
    """Serious and critical faults inside a selector, as "rule: what (where)"; skips without axe."""
    package = pytest.importorskip("axe_playwright_python", reason="no axe_playwright_python here")
    script = Path(package.__file__).with_name("axe.min.js").read_text("utf-8")
    page.evaluate(f"() => {{ {script} }}")
    found = page.evaluate("inside => axe.run(inside, { resultTypes: ['violations'] })", inside)
    return [
        f"{fault['id']}: {fault['help']} ({fault['nodes'][0]['html'][:150]})"
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
