"""A page as a browser shows it: python look.py URL ADDRESS DIRECTORY, with the Python of the app's own environment.

Prints JSON: what is read, and in each light and width whether the page fits and what it complains of. Pictures go to
DIRECTORY. The URL may hold a name and a password; its host is looked for at ADDRESS.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
VIEWS = {"light": ("light", 1200), "dark": ("dark", 1200), "narrow": ("light", 375)}
LOADED = "return performance.getEntriesByType('resource').map(entry => entry.name)"
STYLE = "return getComputedStyle(document.body).backgroundColor"


def browser(url: str, address: str, profile: str) -> Chrome:
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    rules = f"--host-resolver-rules=MAP {urlsplit(url).hostname} {address}"
    for option in (*OPTIONS, rules, f"--user-data-dir={profile}", "--no-proxy-server"):
        options.add_argument(option)
    # Whether the certificate is good others look at.
    options.accept_insecure_certs = True
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Chrome(options, Service(shutil.which("chromedriver")))


def look(chrome: Chrome, url: str, directory: Path) -> dict[str, object]:
    views = {}
    for name, (light, width) in VIEWS.items():
        chrome.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        media = [{"name": "prefers-color-scheme", "value": light}]
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        chrome.get(url)
        height = chrome.execute_script("return document.documentElement.scrollHeight")
        wide = chrome.execute_script("return document.documentElement.scrollWidth")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chrome.save_screenshot(str(directory / f"{name}.png"))
        views[name] = {"width": width, "wide": wide, "background": chrome.execute_script(STYLE)}
    return {
        "title": chrome.title,
        "text": chrome.find_element(By.TAG_NAME, "body").text,
        "loaded": [one for one in chrome.execute_script(LOADED) if not one.endswith("/favicon.ico")],
        "complaints": [one["message"] for one in chrome.get_log("browser") if "favicon" not in one["message"]],
        "views": views,
    }


def main(url: str, address: str, directory: str) -> None:
    Path(directory).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        chrome = browser(url, address, profile)
        try:
            print(json.dumps(look(chrome, url, Path(directory)), ensure_ascii=False))
        finally:
            chrome.quit()


if __name__ == "__main__":
    main(*sys.argv[1:])
