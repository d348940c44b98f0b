"""A reader opens the report in a browser: every figure and every claim is there, and the console is silent."""

import base64
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from learning_geometry.claims.studies import STUDIES

from .conftest import FIGURES, REPOSITORY, tiny_config

EXPERIMENTS, LANGUAGE_MODELS = tiny_config()["experiments"], tiny_config()["language_models"]
STUDIED = EXPERIMENTS | LANGUAGE_MODELS
JUDGED = list(dict.fromkeys(each["study"] for each in STUDIED.values()))

pytestmark = pytest.mark.slow

CLAIMS = {claim.name for study in STUDIES if study.name in JUDGED for claim in study.claims}
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # the sandbox refuses to start for root, as in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
)
SECONDS = 60
SNAKEMAKE_OWN = "cdn.tailwindcss.com should not be used in production"
"""Logged by the copy of Tailwind that Snakemake puts into every report, with or without results of ours."""


def program(name):
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"{name} is not on PATH: run sh tests/install_browser.sh, which says what is needed")
    return path


@pytest.fixture(scope="module")
def report(finished, tmp_path_factory):
    """The report of the tiny run; written elsewhere, because the run is not to be changed."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    # as `make report` does: without the style the top of a page taller than the window is hidden
    style = ("--report-stylesheet", "workflow/report/style.css")
    finished[0].snakemake("--cores", "1", "--report", str(path), *style)
    return path


@pytest.fixture
def browser(tmp_path):
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium")
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # an explicit path: otherwise selenium looks for a driver to download
    driver = webdriver.Chrome(options=options, service=Service(program("chromedriver")))
    # a browser that stops answering is a failure, not a wait
    driver.command_executor.client_config.timeout = SECONDS
    try:
        yield driver
    finally:
        driver.quit()


def wait(browser, condition):
    return WebDriverWait(browser, SECONDS).until(lambda _: condition())


def complaints(browser):
    """What the console holds of warnings and errors, but for Snakemake's own."""
    return [
        entry["message"]
        for entry in browser.get_log("browser")
        if entry["level"] in ("WARNING", "SEVERE") and SNAKEMAKE_OWN not in entry["message"]
    ]


def outside(browser):
    """Whatever the page fetched from the network."""
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    return [name for name in fetched if name.startswith(("http:", "https:"))]


def open_report(browser, report):
    """Open the report and wait until its last part, the graph of rules, is drawn."""
    browser.get(report.as_uri())
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#app .vega-embed"))


def click(browser, element):
    """Click from inside the page: a pointer misses what still slides into its place."""
    browser.execute_script("arguments[0].click()", element)


def click_text(browser, text):
    link = f"//nav//a[normalize-space()='{text}']"
    click(browser, wait(browser, lambda: browser.find_elements(By.XPATH, link))[0])


def open_category(browser, report, category):
    """Open the report, click the category, and return the labels of its results."""
    open_report(browser, report)
    click_text(browser, category)
    rows = wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "nav tbody tr"))
    return [row.find_element(By.TAG_NAME, "td").text for row in rows]


def click_result(browser, label, button):
    """Click one of the two buttons beside a result: 0 shows it, 1 tells about it."""
    row = f"//nav//tr[td[normalize-space()='{label}']]"
    buttons = wait(browser, lambda: browser.find_elements(By.XPATH, f"{row}//a"))
    click(browser, buttons[button])


def caption_start(figure):
    """The words of a caption's source before its first reference to the config."""
    source = (REPOSITORY / f"workflow/report/{figure}.rst").read_text()
    source = re.sub(r"^(\{%.*?%\}\s*)+", "", source)
    return " ".join(source.partition("{{")[0].split())


def test_the_front_page_says_what_is_shown(browser, report):
    open_report(browser, report)
    title = browser.find_element(By.CSS_SELECTOR, "#app h1:not(nav h1)")
    assert title.text == "The geometry of transformer learning"
    page = browser.find_element(By.ID, "app").text
    assert f"Experiments in this report: {', '.join(sorted(EXPERIMENTS))}." in page
    assert f"Language models: {', '.join(sorted(LANGUAGE_MODELS))}." in page
    assert complaints(browser) == [] and outside(browser) == []


@pytest.mark.parametrize("study", JUDGED)
def test_every_figure_is_there_with_its_caption(browser, report, finished, study):
    category = study.replace("_", " ").capitalize()
    labels = open_category(browser, report, category)
    first = {name: figure["experiments"][0] for name, figure in tiny_config()["figures"].items()}
    of_study = [name for name in FIGURES if STUDIED[first[name]]["study"] == study]
    assert len(labels) == len(of_study) == len(set(labels))
    shown = {}
    for label in labels:
        click_result(browser, label, 0)
        image = wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#app img[src^='data:image/png']"))[0]
        wait(browser, lambda image=image: image.get_property("naturalWidth") > 500)
        data = image.get_property("src").partition(",")[2]
        click_result(browser, label, 1)
        caption = wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "nav li.prose"))[0].text
        figure = re.search(r"\bfigure_(\w+)", browser.find_element(By.TAG_NAME, "nav").text)[1]
        shown[figure] = caption
        assert base64.b64decode(data) == (finished[0].folder / f"results/figures/{figure}.png").read_bytes()
        click_text(browser, category)
    assert shown.keys() == set(of_study)
    for figure, caption in shown.items():
        assert " ".join(caption.split()).startswith(f"{caption_start(figure)} {first[figure]}"), figure
        assert not re.search(r"\{\{|\{%|\*\*|system message", caption), figure
    assert complaints(browser) == [] and outside(browser) == []


def visible_rows(browser):
    return [row for row in browser.find_elements(By.CSS_SELECTOR, "tbody tr") if row.is_displayed()]


def check_claims_table(browser, ledger):
    """Every row of the ledger is in the table, headings sort it and the search box filters it."""
    rows = visible_rows(browser)
    assert len(rows) == len(ledger)
    key = "td:nth-child({}) ".format
    ids = [row.find_element(By.CSS_SELECTOR, key(2)).get_attribute("data-key") for row in rows]
    assert ids == ledger["claim"].tolist() and set(ids) == CLAIMS
    assert all(row.find_element(By.CSS_SELECTOR, key(1)).text.strip() for row in rows)

    def order(column):
        return [
            row.find_element(By.CSS_SELECTOR, key(column)).get_attribute("data-key") for row in visible_rows(browser)
        ]

    click(browser, browser.find_element(By.XPATH, "//th/button[.='estimate [95 %]']"))
    upwards = [float(value) for value in order(6) if value]
    assert upwards == sorted(upwards) and len(set(upwards)) > 1
    assert order(2) != ids and sorted(order(2)) == sorted(ids)
    click(browser, browser.find_element(By.XPATH, "//th/button[.='estimate [95 %]']"))
    downwards = order(6)
    assert [float(value) for value in downwards if value] == sorted(upwards, reverse=True)
    assert all(value == "" for value in downwards[len(upwards) :])

    search = browser.find_element(By.ID, "search")
    search.send_keys("layer ONE")
    found = visible_rows(browser)
    assert 0 < len(found) < len(ledger)
    assert all(word in row.text.lower() for row in found for word in ("one", "layer"))
    assert browser.find_element(By.ID, "shown").text == f"{len(found)} of {len(ledger)} rows"
    search.clear()
    search.send_keys("nothing says this")
    assert visible_rows(browser) == []
    search.clear()
    search.send_keys(" ")
    assert len(visible_rows(browser)) == len(ledger)


def ledger_of(finished):
    return pd.read_csv(finished[0].folder / "results/claims.csv", keep_default_na=False, na_values=[""])


def test_the_claims_are_a_page_of_the_report(browser, report, finished):
    (label,) = open_category(browser, report, "Claims")
    click_result(browser, label, 1)
    caption = wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "nav li.prose"))[0].text
    assert caption.startswith("Claims of the works, judged by rules that were fixed before the run.")
    click(browser, browser.find_element(By.CSS_SELECTOR, "nav td a"))
    frame = wait(browser, lambda: browser.find_elements(By.TAG_NAME, "iframe"))[0]
    browser.switch_to.frame(frame)
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "tbody tr"))
    check_claims_table(browser, ledger_of(finished))
    # the figures are not beside a page inside the report
    assert browser.find_elements(By.CSS_SELECTOR, "td a") == []
    assert complaints(browser) == []


def test_the_claims_open_from_disk(browser, finished):
    browser.get((finished[0].folder / "results/claims.html").as_uri())
    check_claims_table(browser, ledger_of(finished))
    links = {link.get_property("href") for link in browser.find_elements(By.CSS_SELECTOR, "td a")}
    assert links and all(Path(unquote(urlsplit(link).path)).is_file() for link in links)
    assert complaints(browser) == [] and outside(browser) == []


def test_the_tables_are_in_the_report(browser, report, finished):
    labels = open_category(browser, report, "Tables")
    assert sorted(labels) == sorted(STUDIED)
    for label in labels:
        row = f"//nav//tr[td[normalize-space()='{label}']]//a[@download='summary.csv']"
        data = browser.find_element(By.XPATH, row).get_property("href").partition(",")[2]
        assert base64.b64decode(data) == (finished[0].folder / f"results/{label}/summary.csv").read_bytes()
    assert complaints(browser) == []
