"""The chat page in a real browser: one for all tests, with a tab's memory of its own for each."""

import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from access import FREE, GUARD
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from servers import Model, wait_for
from service import KEY, LocalService

OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-proxy-server",
)  # fmt: skip

# Whatever of an answer was on the page at any time, and whether it could be stopped.
WATCH = """
window.seen = [];
new MutationObserver(() => {
  const text = document.querySelector(".theirs .text");
  if (text) window.seen.push([text.textContent, !document.getElementById("stop").hidden]);
}).observe(document.getElementById("log"), { childList: true, subtree: true, characterData: true });
"""


@pytest.fixture(scope="module")
def paged(
    run: Callable[[dict[str, Any]], LocalService], model_settings: dict[str, Any], other_model_server: Model
) -> LocalService:
    fallback = {"model_fallbacks": ["openai:gpt-4.1-mini"], "openai_url": f"{other_model_server.url}/v1"}
    key = {"openai_key": other_model_server.key, "release": "paged"}
    tiers = {"free": {"requests_per_day": 1}, **GUARD["tiers"]}
    return run({**model_settings, **GUARD, "tiers": tiers, **fallback, **key})


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    binaries = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(binaries):
        pytest.exit("Chromium is missing; install it with: apt-get install chromium chromium-driver", returncode=3)
    options = ChromeOptions()
    options.binary_location = binaries[0] or ""
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options, Service(binaries[1]))
    yield browser
    browser.quit()


class Page:
    def __init__(self, browser: Chrome, port: int) -> None:
        self.browser = browser
        self.url = f"http://127.0.0.1:{port}/"
        browser.get(self.url)

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.browser.find_elements(By.CSS_SELECTOR, selector)]

    def ask(self, message: str) -> None:
        self.find("#message").send_keys(message, Keys.ENTER)

    def wait(self, what: Callable[[], Any]) -> None:
        wait_for(lambda: bool(what()), 20, "the page")

    def answered(self, number: int = 1) -> None:
        self.wait(lambda: len(self.texts(".about")) == number)

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser") if "favicon" not in entry["message"]]


@pytest.fixture
def page(chrome: Chrome, paged: LocalService, model: Model) -> Iterator[Page]:
    """As an own tab has it, with a key."""
    opened = Page(chrome, paged.port)
    chrome.execute_script("sessionStorage.clear(); sessionStorage.setItem('agent.key', arguments[0])", KEY)
    chrome.refresh()
    chrome.get_log("browser")
    yield opened


def test_answer_streams_and_says_whose_it_is_and_what_it_cost(page: Page, model: Model) -> None:
    answer = "one two three four five six seven eight nine ten"
    model.control(tokens_per_second=20, answer=answer)
    page.browser.execute_script(WATCH)
    page.ask("How will our cash flow look next month?")
    page.answered()
    assert page.texts(".text") == ["How will our cash flow look next month?", answer]
    seen = page.browser.execute_script("return window.seen")
    assert len({text for text, _ in seen}) > 2
    # All the while it can be stopped.
    assert {stop for text, stop in seen if text != answer} == {True}
    assert not page.find("#stop").is_displayed()
    assert page.texts(".agent") == ["cashflow"]
    assert re.fullmatch(r"[a-z ]+ · \d+ % sure", page.texts(".intent")[0])
    assert re.fullmatch(r"\d+ tokens", page.texts(".tokens")[0])
    assert re.fullmatch(r"\$0\.0*[1-9]\d?", page.texts(".cost")[0])
    model.control(reset=True)
    page.ask("And then?")
    page.answered(2)
    # The session went on, and what both cost is added up.
    assert page.texts(".theirs .text")[1] == "(2) You said: And then?"
    spent = [int(text.split()[0]) for text in page.texts(".tokens")]
    assert page.find("#total").text.startswith(f"Total {sum(spent)} tokens · $0.0")
    assert page.find("#said").get_attribute("textContent") == "cashflow: (2) You said: And then?"
    page.browser.refresh()
    assert len(page.texts(".about")) == 2
    page.find("#new").click()
    assert page.texts("article") == []
    page.ask("Hello again")
    page.answered()
    assert page.texts(".theirs .text") == ["(1) You said: Hello again"]
    assert page.errors() == []


def test_what_a_restart_voids_is_gone(page: Page, model: Model, other_model: Model) -> None:
    other_model.control(answer="The whole answer", tokens_per_second=20)
    model.control(cut_after_tokens=3, tokens_per_second=20)
    page.browser.execute_script(WATCH)
    page.ask("A message of several words")
    page.answered()
    # While it was being written, too.
    seen = [text for text, _ in page.browser.execute_script("return window.seen") if text]
    assert any(not text.startswith("The") for text in seen)
    assert all(text.startswith("The") for text in seen if "The" in text)
    assert page.texts(".theirs .text") == ["The whole answer"]


def test_texts_are_never_html(page: Page, model: Model) -> None:
    attack = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
    model.control(answer=attack)
    page.ask(attack)
    page.answered()
    assert page.texts(".text") == [attack, attack]
    assert page.browser.find_elements(By.CSS_SELECTOR, "article img, article script") == []
    page.browser.refresh()
    assert page.texts(".text") == [attack, attack]
    assert page.browser.title == "Agent service"
    # Nor would the browser take it for that.
    refused = page.browser.execute_script(
        "try { document.body.innerHTML = arguments[0]; return null } catch (error) { return error.name }", attack
    )
    assert refused == "TypeError"


def test_stop_ends_the_answer(page: Page, model: Model, paged: LocalService) -> None:
    model.control(tokens_per_second=4, answer="one two three four five six seven eight nine ten")
    page.ask("Hi")
    page.wait(lambda: page.texts(".theirs .text")[0])
    page.find("#stop").click()
    page.wait(lambda: page.texts(".problem"))
    assert page.texts(".problem") == ["Stopped. Nothing of this was kept."]
    assert page.find("#send").is_displayed()
    wait_for(lambda: paged.client.metric("agent_active_requests") == 0, 5, "end of the turn")


def test_key_is_asked_for_and_refusals_are_told_in_the_services_words(page: Page, model: Model) -> None:
    page.find("#forget").click()
    page.ask("Hello")
    page.wait(lambda: page.find("#key").is_displayed())
    page.find("#key").send_keys("a wrong key", Keys.ENTER)
    page.wait(lambda: "does not know this key" in page.find("#keyhint").text)
    page.find("#key").send_keys(FREE, Keys.ENTER)
    page.answered()
    assert page.texts(".theirs .text") == ["(1) You said: Hello"]
    page.ask("Once more")
    page.wait(lambda: page.texts(".problem"))
    (problem,) = page.texts(".problem")
    assert problem.startswith("Too many requests: Tier free allows 1 requests a day")
    assert re.search(r"Try again in \d+ (s|minutes|hours)\. \(request [0-9a-f]{32}\)$", problem)


def test_failure_of_the_model_is_told(page: Page, model: Model, other_model: Model) -> None:
    for provider in (model, other_model):
        provider.control(fail_next=50, status=400)
    page.ask("Hello")
    page.wait(lambda: page.texts(".problem"))
    assert page.texts(".problem")[0].startswith("Model ")


@pytest.mark.parametrize("width", [320, 1280])
def test_nothing_scrolls_sideways(page: Page, model: Model, width: int) -> None:
    word = "Donaudampfschifffahrtsgesellschaft" * 8
    model.control(answer=word)
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 640, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        page.ask(word)
        page.answered()
        for root in ("document.documentElement", "document.getElementById('main')"):
            assert page.browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
        for name in ("#message", "#send", "#new"):
            box = page.find(name).rect
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_everything_has_a_name_and_the_keyboard_reaches_it(page: Page) -> None:
    names = page.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    controls = [node for node in names if node.get("role", {}).get("value") in ("button", "textbox", "main", "status")]
    assert len(controls) >= 5
    unnamed = [node for node in controls if not node.get("name", {}).get("value") and node["role"]["value"] != "status"]
    assert unnamed == []
    assert page.browser.switch_to.active_element.get_attribute("id") == "message"


def test_page_is_for_everybody_and_loads_nothing_from_elsewhere(paged: LocalService) -> None:
    answer = httpx.get(f"http://127.0.0.1:{paged.port}/", trust_env=False)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"(src|href|action)=[\"']?(https?:|//)", answer.text)
    assert KEY not in answer.text


def test_page_can_be_turned_off(
    run_briefly: Callable[[dict[str, Any]], LocalService], base_settings: dict[str, Any]
) -> None:
    bare = run_briefly({**base_settings, "model_key": "", "chat_page": False})
    assert bare.client.get("/").status_code == 404
