"""The page of the service in a real Chromium: everything is clicked, typed, read and looked at in both languages."""

import itertools
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from electrain.foundation.configuration import to_toml
from electrain.foundation.output_folder import LOCK_NAME, Manifest, write_manifest
from electrain.inference.serve.app import PAGE, create_app
from electrain.inference.serve.server import Loading
from electrain.inference.serve.settings import ServeSettings
from electrain.pretraining.report_figures import FIGURES
from electrain.training.journal import Journal
from pretended_answers import ALL_TASKS, Pretender
from tiny_pretraining import tiny_configuration

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: the page is not tested")
Page, expect = playwright.Page, playwright.expect
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: the page is not tested")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-component-update"]
ARGUMENTS += ["--disable-background-networking", "--disable-renderer-backgrounding"]
PATIENCE = 60_000  # milliseconds, on a busy machine
expect.set_options(timeout=PATIENCE)
MARKUP = "<img src=x onerror=alert(1)> <b>banana</b> & <script>alert(2)</script>"
# A surrogate pair, joined emoji, combining marks, and right to left text stand before the words to be found.
ODD_TEXT = "\U0001f600 banana e\u0301\u0323 \U0001f469\u200d\U0001f469\u200d\U0001f467 kettle שלום עולם banana"


class Served:
    """A service on a port of this machine, on a thread; it can be stopped and started again."""

    def __init__(self, app: object) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.app, self.url = app, f"http://127.0.0.1:{self.port}/"
        self.start()

    def start(self) -> None:
        config = uvicorn.Config(self.app, port=self.port, log_level="error", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture(scope="module")
def model() -> Pretender:
    return Pretender()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live") / "run"
    folder.mkdir()
    (folder / "config.toml").write_text(to_toml(tiny_configuration(training={"steps": 400})) + f"\n# {MARKUP}\n")
    write_manifest(folder, Manifest("run", False, {}, {}))
    (folder / LOCK_NAME).write_text("{}")
    log(folder, 20, 200)
    journal = Journal(folder / "metrics.jsonl")
    journal.write({"event": "warning", "step": 3, "message": f"something new: {MARKUP}"})
    jump = (
        "the gradient norm jumped to 134 from about 2.77; it is clipped, but if it stays there, lower the learning rate"
    )
    journal.write({"event": "warning", "step": 200, "message": jump})
    tokens = {"tokens": ["the", "ban", "##ana", "<b>"], "originals": ["the", "me", "##al", "<b>"]}
    judged = {"is_replaced": [False, True, True, False], "probabilities": [0.1, 0.9, 0.4, 0.0]}
    Journal(folder / "examples.jsonl").write({"step": 20, **tokens, **judged})
    return folder


def hold(folder: Path) -> None:
    """Touches the lock of a run, as its training does, for as long as a slow machine needs to test it."""
    (folder / LOCK_NAME).touch()
    os.utime(folder / LOCK_NAME, (time.time() + 600,) * 2)


def log(folder: Path, first: int, last: int) -> None:
    for step in range(first, last + 1, 20):
        line = {"event": "log", "step": step, "tokens": 2048 * step, "seconds": 0.5 * step, "loss": 30 - step / 40}
        line |= {"generator_loss": 9 - step / 50, "learning_rate": 0.001, "tokens_per_second": 4096.0}
        line |= {"discriminator_auc": 0.5 + step / 1000, "unigram_auc": 0.52}
        Journal(folder / "metrics.jsonl").write(line)


@pytest.fixture(scope="module")
def served(model: Pretender, run: Path) -> Iterator[Served]:
    models = {"english": model, "<i>small</i>": Pretender(tasks=("detect",))}
    service = Served(create_app(models, ServeSettings(), {"my run": run}))
    yield service
    service.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def watched(page: Page, url: str, *, may_fail: bool = False) -> list[str]:
    """Opens the page; the list collects what must not be: requests to others, failing scripts, dialogs, complaints."""
    faults: list[str] = []
    page.set_default_timeout(PATIENCE)
    page.on("request", lambda request: request.url.startswith(url) or faults.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))

    def hear(said: object) -> None:
        if said.type in ("error", "warning") and not (may_fail and "Failed to load resource" in said.text):
            faults.append(said.text)

    page.on("console", hear)
    page.goto(url)
    return faults


@pytest.fixture(scope="module")
def desk_and_faults(browser, served) -> tuple[Page, list[str]]:
    page = browser.new_page(locale="en-GB", viewport={"width": 1280, "height": 800})
    return page, watched(page, served.url)


@pytest.fixture
def desk(desk_and_faults) -> Iterator[Page]:
    """The page on a desk, in English; several tests use it one after the other."""
    page, faults = desk_and_faults
    yield page
    assert faults == []


@pytest.fixture
def opened(browser, served) -> Iterator[Callable[..., Page]]:
    """`opened(...)`: the page in a browser of its own."""
    contexts, faults = [], []

    def open_page(url: str = "", *, may_fail: bool = False, **settings: object) -> Page:
        contexts.append(
            browser.new_context(**{"locale": "en-GB", "viewport": {"width": 1280, "height": 800}, **settings})
        )
        page = contexts[-1].new_page()
        faults.append(watched(page, url or served.url, may_fail=may_fail))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [fault for own in faults for fault in own] == []


def show(page: Page, task: str) -> object:
    """Chooses the tab of a task and returns its panel."""
    page.locator(f"#tab-{task}").click()
    return page.locator(f"#panel-{task}")


def try_example(page: Page, task: str) -> object:
    """Clicks the first example of a task and returns the answer."""
    show(page, task).locator(".examples button").first.click()
    answer = page.locator(f"#panel-{task} .answer:not(.old)")
    answer.wait_for()
    return answer


def strings(page: Page) -> dict[str, dict[str, str]]:
    return page.evaluate("async () => (await import('/page/strings.js')).STRINGS")


# ---- what stands in the files ---------------------------------------------------------------------------------------


def test_both_languages_have_every_text_with_the_same_places(desk):
    table = strings(desk)
    assert table["en"].keys() == table["zh"].keys()
    for key, text in table["en"].items():
        places = [sorted(set(re.findall(r"\{(\w+)", one))) for one in (text, table["zh"][key])]
        assert places[0] == places[1], key
    same = {key for key in table["en"] if table["en"][key] == table["zh"][key]}
    assert same <= {"title", "unit.AUC", "live.of", "curve.electric_loss"} | {
        f"curve.{n}" for n in ("f1", "bleu", "chrf")
    } | {f"curve.rouge{n}" for n in "12L"}


def test_the_page_uses_every_text_and_no_other(desk):
    table = strings(desk)["en"]
    code = "\n".join(path.read_text() for path in PAGE.glob("*.js") if path.name != "strings.js")
    code += (PAGE / "index.html").read_text()
    quoted = set(re.findall(r"[\"'`]([a-z][\w./ -]*)[\"'`]", code))
    # Keys that the page puts together from a name, such as the title of each task.
    joined = set(re.findall(r"`([a-z]\w*)\.\$\{", code)) | {"fault"}
    tasks = {f"{task}.{end}" for task in ALL_TASKS for end in ("text", "hint", "send", "written")} | {
        f"generate.{name}" for name in ("tokens", "temperature", "top_p")
    }
    tasks |= {"who.generator", "who.model", "what.tokens", "what.lines", "one.token", "one.line"}
    unused = {key for key in table if key not in quoted | tasks and key.partition(".")[0] not in joined}
    assert unused == set()
    used = set(re.findall(r"(?:words|label|hint): \"([\w.-]+)\"", code))
    used |= set(re.findall(r"data-(?:words|label|hint)=\"([\w.-]+)\"", code))
    used |= set(re.findall(r"\bt\(\"([\w.-]+)\"", code)) | set(re.findall(r"\.say\(\"([\w.-]+)\"", code))
    assert used - table.keys() == set()
    for task in [*ALL_TASKS, "live"]:
        assert {f"tab.{task}", f"title.{task}", f"intro.{task}"} <= table.keys()


def test_figures_are_called_as_in_the_report(desk):
    table = strings(desk)["en"]
    for figure in FIGURES:
        name = figure.curves[0].name
        assert (table[f"figure.{name}"], table[f"about.{name}"]) == (figure.title, figure.caption)
        for curve in figure.curves:
            assert table[f"curve.{curve.name}"] == curve.label
        assert not figure.unit or f"unit.{figure.unit}" in table


def test_every_warning_has_plain_words_in_both_languages(desk):
    messages = [
        "a step has 192 tokens; runs with fewer than about 1024 are known to fail; raise training.batch_rows (...)",
        *health_messages(),
    ]
    code = """async (messages) => {
      const { plainWarning } = await import("/page/warnings.js");
      const { setLanguage } = await import("/page/dom.js");
      const told = (language) => (setLanguage(language), messages.map((message) => plainWarning(message)));
      return [...told("zh"), ...told("en")];
    }"""
    for message, told in zip(2 * messages, desk.evaluate(code, messages), strict=True):
        assert told["isKnown"], message
        assert not re.search(r"\{|undefined", told["text"])
        numbers = [one for one in re.findall(r"\d[\d,.]*\d|\d", message) if one not in ("0.5", "1024")]
        assert numbers[0] in told["text"], told


def health_messages() -> list[str]:
    """Every trouble that a run may report, as it is worded."""
    import numpy as np

    from electrain.pretraining.health import HealthMonitor, _troubles

    means = [
        {"generator_loss": 6.6},
        {"masked_language_model_loss": 6.2},
        {"generator_accuracy": 0.9, "replaced_fraction": 0.01},
        {"discriminator_auc": 0.5, "discriminator_recall": 0.048, "unigram_auc": 0.4},
        {"discriminator_auc": 0.6, "unigram_auc": 0.7},
    ]
    found = [message for one in means for message in _troubles(one, 6.4).values()]
    config = tiny_configuration(training={"steps": 10, "warmup_steps": 1}).training
    for norms, refused, tokens in (((1, 1, 1, 500), 2, 1), ((1,), 1, 600_000)):
        monitor = HealthMonitor(config, np.ones(8, dtype=np.int64))
        for step, norm in enumerate(norms, start=11 - len(norms)):
            line = {"step": step, "tokens": tokens, "gradient_norm": norm, "refused_updates": refused}
            found += monitor.observe(line)
    monitor = HealthMonitor(config, np.ones(8, dtype=np.int64))
    for step in range(6, 11):
        bad = {"discriminator_auc": 0.5, "unigram_auc": 0.6, "discriminator_recall": 0.0}
        found += monitor.observe({"step": step, "tokens": 600_000, **bad})
    assert len(found) >= 9
    return found


OLDER_WARNINGS = [  # as earlier versions worded them
    ("a step has 640 tokens; steps below about 1024 are known to fail; raise training.batch_rows (...)", "640"),
    (
        "the generator has not learned from the context yet: its loss of 6.43 nats is that of word frequency "
        "alone (6.41)",
        "6.43",
    ),
    (
        "too early to tell how well the model learns: the run ends after 90,112 tokens and 44 logged lines; "
        "judging takes 500,000 tokens and 3 lines",
        "90,112",
    ),
    (
        "the gradient norm jumped to 134 from about 2.77; it is clipped, but when it stays there the learning rate ...",
        "134",
    ),
    ("the generator's choices have collapsed to 0.31 nats: it nearly always draws the same word, so ...", "0.31"),
    ("the discriminator has won the game (value -0.02, 0 is never wrong): the generator's words are ...", "-0.02"),
    ("the adversarial generator is losing its variety (entropy 0.52 nats): it repeats the few words that ...", "0.52"),
    ("the discriminator learns the generator's style rather than the language: it tells written text ...", ""),
]


def test_warnings_of_older_runs_have_plain_words_too(desk):
    code = """async (messages) => {
      const { plainWarning } = await import("/page/warnings.js");
      const { setLanguage } = await import("/page/dom.js");
      const told = (language) => (setLanguage(language), messages.map((message) => plainWarning(message)));
      return [told("zh"), told("en")];
    }"""
    told = desk.evaluate(code, [message for message, _ in OLDER_WARNINGS])
    for (message, number), chinese, english in zip(OLDER_WARNINGS, *told, strict=True):
        assert chinese["isKnown"], message
        assert english["isKnown"], message
        assert number in chinese["text"], chinese
        assert not re.search(r"\{|undefined|the ", chinese["text"]), chinese


def test_an_unknown_warning_is_marked_as_english(opened):
    page = opened(locale="zh-CN")
    show(page, "live")
    item = page.locator(".warnings li").filter(has_text="something new")
    expect(item.locator("[lang=en]")).to_have_text(f"something new: {MARKUP}")
    expect(item.locator(".note")).to_have_text("此条只有英文：")
    expect(page.locator(".warnings li").first.locator("[lang=en]")).to_have_count(0)
    page.locator("#language").click()
    expect(item.locator(".note")).to_have_count(0)


def test_nothing_writes_markup_and_the_policy_forbids_what_is_inline():
    for path in PAGE.glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", path.read_text()), path
    html = (PAGE / "index.html").read_text()
    assert not re.search(r"\sstyle=|\son\w+=|<style|javascript:|https?:", html)
    assert not re.search(r"https?:", (PAGE / "page.css").read_text())


# ---- asking ---------------------------------------------------------------------------------------------------------


def test_panels_are_those_of_the_models(browser, opened):
    service = Served(create_app({"only": Pretender(tasks=("fill", "embed"))}, ServeSettings()))
    try:
        page = opened(service.url)
        expect(page.locator("[role=tab]")).to_have_text(["Fill in blanks", "Compare"])
        expect(page.locator("#panel-fill")).to_be_visible()
        expect(page.locator("#panel-fill .model")).to_have_text("Model only")
    finally:
        service.stop()
    service = Served(create_app({}, ServeSettings()))
    try:
        expect(opened(service.url).locator("#notice")).to_contain_text("No model and no run is loaded")
    finally:
        service.stop()


EXPECTED = {
    "detect": "1 of 16 words looks replaced",
    "fill": "The old man walked to the meal and sat down.",
    "classify": "positive 93.4 % sure",
    "regress": "3.82",
    "tag": "2 names found",
    "answer": "Robert Stevenson 87.1 % sure",
    "summarize": "Dear all, the meeting on Thursday",
    "translate": "我在看书。",
    "generate": "Once upon a time there was a king who had 0 daughters",
    "embed": "are most alike",
}


def test_every_task_is_answered(desk):
    page = desk
    expect(page.locator("[role=tab]")).to_have_count(len(ALL_TASKS) + 1)
    for task, text in EXPECTED.items():
        answer = try_example(page, task)
        expect(answer).to_contain_text(text)
        assert page.locator(f"#panel-{task} [role=status].unseen").text_content(), "said to those who do not see it"
    assert page.locator("#panel-answer mark.found").text_content() == "Robert Stevenson"
    assert page.locator("#panel-tag .entity").all_text_contents() == ["Ada LovelacePER", "LondonLOC"]
    colours = page.locator("#panel-tag mark").evaluate_all("marks => marks.map((mark) => mark.className)")
    assert colours == ["entity kind kind-0", "entity kind kind-1"], "each kind has its own colour in every text"
    assert page.locator("#panel-embed .heat td").count() == 1 + 5 * 5
    page.locator("#tab-generate").click()
    page.locator("#panel-generate button.main").click()
    expect(page.locator("#panel-generate .continued")).to_contain_text("1 daughters")
    page.locator("#tab-fill").click()
    page.locator("#panel-fill input[type=radio]").nth(1).check()
    expect(page.locator("#panel-fill .filled")).to_have_text("The old man walked to thes and sat down.")


def test_a_question_without_an_answer(desk):
    page = desk
    panel = show(page, "answer")
    panel.locator("textarea").fill("\U0001f600 Nothing of use.")
    panel.locator("input[type=text]").fill("Who?")
    panel.locator("button.main").click()
    expect(panel.locator(".verdict")).to_contain_text("The text does not answer this question.")
    expect(panel.locator("mark.closest")).to_have_text("\U0001f600 Nothin")


def test_a_blank_is_made_from_a_word_and_its_sign_is_never_shown(desk, model):
    page = desk
    panel = show(page, "fill")
    panel.locator("textarea").fill("We ate \U0001f600 a big dinner today")
    panel.locator("button.main").click()
    expect(panel.locator("[role=alert]")).to_contain_text("There is no blank yet")
    page.evaluate("document.querySelector('#panel-fill textarea').setSelectionRange(20, 20)")
    panel.get_by_role("button", name="Make a blank").click()
    assert panel.locator("textarea").input_value() == "We ate \U0001f600 a big ____ today"
    panel.locator("button.main").click()
    expect(panel.locator(".filled")).to_have_text("We ate \U0001f600 a big meal today")
    assert model.calls[-1][1] == ["We ate \U0001f600 a big [MASK] today"]
    assert "[MASK]" not in panel.inner_text()


def test_words_of_odd_texts_are_shaded_where_they_stand(desk, model):
    page = desk
    panel = show(page, "detect")
    panel.locator("textarea").fill(ODD_TEXT)  # judged by itself after a pause
    expect(panel.locator(".shaded")).to_have_text(ODD_TEXT)
    assert panel.locator(".word.suspicious").all_text_contents() == ["banana", "kettle", "banana"]
    before = len([call for call in model.calls if call[0] == "fill"])
    panel.locator(".word.suspicious").nth(1).hover()
    card = panel.locator(".card")
    expect(card).to_contain_text("replaced with probability 93.0 %")
    expect(card.locator("li")).to_have_count(5)
    asked = [call[1][0] for call in model.calls if call[0] == "fill"]
    assert asked[before:] == [ODD_TEXT.replace("kettle", "[MASK]")], "what would stand there is asked once, and lazily"
    expect(card.locator("li").first).to_have_text("meal61.0 %")
    page.mouse.move(5, 5)
    expect(card).to_be_hidden()


def test_markup_is_shown_as_text(desk):
    page = desk
    for task in ("detect", "tag", "summarize", "generate", "embed", "answer"):
        panel = show(page, task)
        panel.locator("textarea").first.fill(f"{MARKUP}\n{MARKUP}")
        if task == "answer":
            panel.locator("input[type=text]").fill(MARKUP)
        panel.locator("button.main").click()
        answer = panel.locator(".answer:not(.old)")
        expect(answer).to_contain_text("<img src=x onerror=alert(1)>")
    show(page, "detect").locator(".word.suspicious").first.click()
    expect(page.locator("#panel-detect .card")).to_contain_text("<b>cake</b>")
    show(page, "live")
    expect(page.locator(".warnings")).to_contain_text([MARKUP])
    assert page.locator("main :is(img, b, script, i)").count() == 0
    assert page.locator("#panel-detect option").all_text_contents() == ["english", "<i>small</i>"]


def test_a_chosen_model_answers(desk, model):
    page = desk
    panel = show(page, "detect")
    panel.locator("select").select_option("<i>small</i>")
    before = len(model.calls)
    try_example(page, "detect")
    assert model.calls[before:] == []


def test_the_page_is_there_while_models_load(opened):
    loading = Loading()
    service = Served(loading)
    try:
        page = opened(service.url, may_fail=True)
        expect(page.locator("main > [role=alert]")).to_contain_text("The service is not ready just now.")
        loading.app = create_app({"only": Pretender(tasks=("detect",))}, ServeSettings())
        page.get_by_role("button", name="Try now").click()
        expect(page.locator("#panel-detect")).to_be_visible()
    finally:
        service.stop()


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_dead_service_is_said_and_the_page_recovers(opened):
    service = Served(create_app({"only": Pretender(tasks=("detect",))}, ServeSettings()))
    page = opened(service.url, may_fail=True)
    panel = page.locator("#panel-detect")
    panel.locator("textarea").fill("a banana")
    expect(panel.locator(".answer")).to_be_visible()
    service.stop()
    panel.locator("textarea").fill("another banana")
    expect(panel.locator("[role=alert]").first).to_contain_text("The service does not answer.")
    service.start()
    panel.get_by_role("button", name="Try now").click()
    expect(panel.locator(".shaded")).to_have_text("another banana")
    expect(panel.locator("[role=alert]").first).to_be_hidden()
    service.stop()


@contextmanager
def answering(page: Page, status: int, line: str) -> Iterator[None]:
    """The route of the classifier answers with this status."""
    body = json.dumps({"error": line})
    page.route("**/classify", lambda route: route.fulfill(status=status, body=body, content_type="application/json"))
    yield
    page.unroute("**/classify")


REFUSALS = [  # status, what the page says, and whether it tries again by itself
    (413, "This is too long for the service. Shorten the text. secret <b>line</b>", False),
    (422, "The service cannot use this input: secret <b>line</b>", False),
    (429, "The service has too much to do just now. The page tries again by itself.", True),
    (503, "The service is not ready just now. The page tries again by itself.", True),
    (504, "The answer took too long.", False),
    (500, "The service made a mistake. Its log says more.", False),
]


def test_refusals_are_put_plainly_and_pass(opened):
    page = opened(may_fail=True)
    panel = show(page, "classify")
    alert = panel.locator("[role=alert]")
    panel.locator("textarea").first.fill("a warm film")
    for status, text, passes in REFUSALS:
        with answering(page, status, "secret <b>line</b>"):
            panel.locator("button.main").click()
            expect(alert).to_be_visible()
            expect(panel.locator(".answer")).to_have_count(1)
            assert " ".join(alert.inner_text().split()).startswith(text)
        if not passes:
            expect(panel.locator(".waiting")).to_be_hidden()
            panel.locator("button.main").click()
        expect(alert).to_be_hidden()
        expect(panel.locator(".verdict")).to_contain_text("positive")


UNCERTAIN = {  # answers as weak models give them, and what the page says of them
    "classify": (
        {"text": "x", "label": "1", "probability": 0.55, "probabilities": {"0": 0.45, "1": 0.55}},
        ["Label 1 55.0 % sure", "The model is not sure.", "Label 0"],
    ),
    "answer": (
        {"question": "x", "context": "a b", "answer": "a", "start": 0, "end": 1, "score": 0.12},
        ["a 12.0 % sure", "The model is not sure."],
    ),
    "fill": (
        {"text": "x", "masks": [{"start": 0, "end": 6, "candidates": [{"token": "man", "probability": 0.045}]}]},
        ["man", "The model is not sure."],
    ),
    "translate": ({"text": "x", "output": "。"}, ["。", "The model wrote no word."]),
    "embed": ({"text": "x", "embedding": [1.0, 0.5]}, ["are most alike (1.000)"]),
    "detect": (
        {
            "text": "张三的茶 AI",
            "tokens": [
                {"token": token, "start": start, "end": start + len(token), "probability_replaced": 0.6}
                for start, token in ((0, "张"), (1, "三"), (2, "的"), (3, "茶"), (5, "AI"))
            ],
        },
        ["5 of 5 characters look replaced", "Most suspicious characters"],
    ),
}


def test_uncertain_answers_say_so(opened):
    page = opened()
    for task, (answer, texts) in UNCERTAIN.items():
        count = 5 if task == "embed" else 1
        reply = json.dumps({"answers": [answer] * count})
        page.route(
            f"**/{task}", lambda route, _, reply=reply: route.fulfill(body=reply, content_type="application/json")
        )
        shown = try_example(page, task)
        for text in texts:
            expect(shown).to_contain_text(text)
        assert shown.locator("mark.found").count() == 0, "a guess is not marked as an answer"
        assert texts[-1 if task in ("answer", "translate") else 0].split(" 5")[0] in (
            page.locator(f"#panel-{task} [role=status].unseen").text_content()
        )


def test_suspicious_words_are_listed_once_and_another_models_words_are_named(opened):
    page = opened()
    panel = show(page, "detect")
    panel.locator(".model select").select_option("<i>small</i>")
    panel.locator("textarea").fill("banana kettle Banana banana there")
    panel.locator("button.main").click()
    expect(panel.locator(".block .name")).to_have_text(["banana", "kettle", "there"])
    panel.locator(".word").first.hover()
    expect(panel.locator(".card")).to_contain_text("The model english would write:")


def test_a_field_grows_with_its_text(opened):
    page = opened()
    area = show(page, "detect").locator("textarea")
    before = area.bounding_box()["height"]
    area.fill("word " * 2000)
    assert before < area.bounding_box()["height"] <= 24 * 16 + 1


def test_a_token_is_asked_for_and_kept_in_this_tab(opened, run):
    service = Served(
        create_app({"only": Pretender(tasks=("detect",))}, ServeSettings(token="open sesame".replace(" ", "-")))
    )
    try:
        page = opened(service.url, may_fail=True)
        dialog = page.locator("dialog")
        expect(dialog).to_be_visible()
        for given, told in (("", "Enter the token"), ("клюква", "does not know"), ("wrong", "does not know")):
            dialog.locator("input").fill(given)
            dialog.locator("input").press("Enter")
            expect(dialog.locator("#token-wrong")).to_contain_text(told)
        dialog.locator("input").fill("open-sesame")
        dialog.locator("button").click()
        expect(page.locator("#panel-detect")).to_be_visible()
        assert page.evaluate("[...Array(localStorage.length).keys()].map((n) => localStorage.key(n))") == []
        page.reload()
        expect(page.locator("#panel-detect")).to_be_visible()
        expect(dialog).to_be_hidden()
    finally:
        service.stop()


# ---- how it can be used and looks -----------------------------------------------------------------------------------


def test_with_the_keyboard_alone(opened):
    page = opened()
    expect(page.locator("#panel-detect")).to_be_visible()
    focused = "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "skip"
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate(focused) == "tab-detect"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("End")
    assert page.evaluate(focused) == "tab-live"
    page.keyboard.press("ArrowDown")  # round to the first
    assert page.evaluate(focused) == "tab-detect"
    for _ in range(2):
        page.keyboard.press("Tab")  # past the choice of the model, into the text
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
    page.keyboard.type("a warm banana there")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#panel-detect .shaded")).to_be_visible()
    while page.evaluate("!document.activeElement.classList.contains('word')"):
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == "banana"
    assert page.evaluate("document.activeElement.ariaLabel") == "banana: 93.0 %"
    card = page.locator("#panel-detect .card")
    expect(card).to_contain_text("The model would write:")
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()


def test_a_phone_shows_the_card_on_a_tap(opened):
    page = opened(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    try_example(page, "detect")
    page.locator(".word.suspicious").first.tap()
    card = page.locator("#panel-detect .card")
    expect(card.locator("li")).to_have_count(5)
    box = card.bounding_box()
    assert box["x"] == 0
    assert box["y"] + box["height"] == pytest.approx(740, abs=1)
    page.locator("h1").tap()
    expect(card).to_be_hidden()


def test_language_and_colours_are_the_users_and_are_kept(opened):
    page = opened(locale="zh-CN", color_scheme="dark")
    expect(page.locator("#tab-detect")).to_have_text("可疑词")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    paper = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(paper) == "rgb(19, 20, 22)"
    answer = try_example(page, "classify")
    expect(answer).to_contain_text("把握")
    page.locator("#language").click()
    expect(answer).to_contain_text("sure")
    expect(page.locator("#tab-detect")).to_have_text("Odd words")
    page.locator("#theme").click()
    assert page.evaluate(paper) == "rgb(247, 245, 241)"
    page.reload()
    expect(page.locator("#tab-detect")).to_have_text("Odd words")
    assert page.evaluate(paper) == "rgb(247, 245, 241)"
    expect(page.locator("#panel-classify")).to_be_visible()


# Every text that can be seen, with the contrast that it has; WCAG 2.2, 1.4.3.
CONTRASTS = """() => {
  const parsed = (text) => {
    const numbers = text.match(/[\\d.e-]+/g).map(Number);
    const [r, g, b] = text.startsWith("color(srgb") ? numbers.map((n) => 255 * n) : numbers;
    return [r, g, b, numbers[3] ?? 1];
  };
  const over = (top, below) => [0, 1, 2].map((n) => top[3] * top[n] + (1 - top[3]) * below[n]).concat(1);
  const luminance = (colour) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, n) => {
    const part = colour[n] / 255;
    return sum + weight * (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  }, 0);
  const ground = (element) => {
    if (element === null) return [255, 255, 255, 1];
    return over(parsed(getComputedStyle(element).backgroundColor), ground(element.parentElement));
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const isShown = element.checkVisibility() && walker.currentNode.data.trim() && !element.closest(".unseen, .skip");
    if (!isShown || /OPTION|SCRIPT|NOSCRIPT/.test(element.tagName)) continue;
    seen += 1;
    const style = getComputedStyle(element);
    const below = ground(element);
    const own = over(parsed(element instanceof SVGElement ? style.fill : style.color), below);
    const [one, other] = [luminance(own), luminance(below)];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (isLarge ? 3 : 4.5)) poor.push(`${walker.currentNode.data.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  const style = getComputedStyle(document.documentElement);
  const probe = document.body.appendChild(document.createElement("span"));
  for (const name of ["--curve-0", "--curve-1", "--curve-2", "--curve-3", "--strong-line", "--accent", "--mark-line"]) {
    probe.style.setProperty("color", `var(${name})`);
    probe.style.setProperty("background", "var(--surface)");
    const [one, other] = [luminance(parsed(getComputedStyle(probe).color)), luminance(ground(probe))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 3) poor.push(`${name}: ${ratio.toFixed(2)}`);
  }
  probe.remove();
  return [seen, poor];
}"""


@pytest.mark.parametrize(("scheme", "locale"), [("light", "en-GB"), ("dark", "zh-CN")])
def test_every_panel_fits_a_phone_and_can_be_read(opened, scheme, locale):
    page = opened(viewport={"width": 360, "height": 740}, color_scheme=scheme, locale=locale, reduced_motion="reduce")
    for task in [*ALL_TASKS, "live"]:
        if task == "live":
            show(page, task)
            page.locator(".plot .thick").first.wait_for()
        else:
            try_example(page, task)
        if task == "detect":
            page.locator(".switch input").check()
        too_wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert too_wide <= 0, task
        seen, poor = page.evaluate(CONTRASTS)
        assert seen > 10
        assert poor == [], task
    assert page.evaluate("document.getAnimations().length") == 0


def test_a_screen_reader_finds_its_way(desk):
    page = desk
    try_example(page, "detect")
    for role in ("banner", "navigation", "main", "tablist"):
        assert page.get_by_role(role).count() == 1
    assert page.get_by_role("tabpanel", name="Odd words").count() == 1
    assert page.locator("[role=tab][aria-selected=true]").count() == 1
    unnamed = """[...document.querySelectorAll("input, textarea, select, button, [role=button], [role=img], progress")]
      .filter((one) => one.checkVisibility())
      .filter((one) => !(one.ariaLabel || one.labels?.length || one.textContent.trim()))
      .map((one) => one.outerHTML)"""
    for task in [*ALL_TASKS, "live"]:
        show(page, task)
        assert page.evaluate(unnamed) == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))


# ---- the live report ------------------------------------------------------------------------------------------------


# A figure of given points, drawn at a width; what can be read in it.
DRAWN = """async ([points, width, language]) => {
  const { Chart } = await import("/page/curves.js");
  (await import("/page/dom.js")).setLanguage(language);
  const place = document.body.appendChild(document.createElement("div"));
  place.style.setProperty("width", `${width}px`);
  const chart = new Chart({ name: "loss", unit: "nats", curves: ["loss"] });
  place.append(chart.element);
  chart.update(points);
  const box = chart.canvas.getBoundingClientRect();
  const marks = (name) => [...chart.canvas.querySelectorAll(`.tick.${name}`)].map((tick) => {
    const { left, right } = tick.getBoundingClientRect();
    return { text: tick.textContent, from: left - box.left, to: right - box.left };
  });
  const unit = [...chart.canvas.querySelectorAll(".unit")].at(-1).getBoundingClientRect().right - box.left;
  const padding = width - chart.canvas.viewBox.baseVal.width;
  const told = { across: marks("across"), up: marks("up"), unit, padding, readout: chart.readout.textContent };
  told.line = chart.canvas.querySelector("[data-curve]").getAttribute("d");
  told.scale = box.width / chart.canvas.viewBox.baseVal.width;
  told.dots = chart.canvas.querySelectorAll(".dot").length;
  place.remove();
  return told;
}"""


def drawn(page: Page, values: dict[int, float | None], width: int, language: str = "en") -> dict[str, object]:
    points = [{"step": step, "values": {"loss": value}} for step, value in values.items()]
    told = page.evaluate(DRAWN, [points, width, language])
    page.evaluate("async () => (await import('/page/dom.js')).setLanguage('en')")
    across, up = told["across"], told["up"]
    for labels in (across, up):
        assert len({label["text"] for label in labels}) == len(labels), "no label stands twice"
    assert all(one["to"] < other["from"] for one, other in itertools.pairwise(across)), "none touches the next one"
    assert told["scale"] == pytest.approx(1, abs=0.01), "the pointer is where it points"
    assert across[0]["from"] >= 0
    assert across[-1]["to"] <= width - told["padding"] + 1, across
    assert all(label["from"] >= told["unit"] - 1 for label in up), "the unit is not written over"
    told["across"] = [label["text"] for label in across]
    return told


@pytest.mark.parametrize("width", [296, 700])
def test_steps_below_a_figure_are_told_apart(desk, width):
    def falling(last: int, every: int = 1, start: int = 0) -> dict[int, float | None]:
        return {step: 9 - 5 * step / (start + last) for step in range(start + every, start + last + 1, every)}

    assert drawn(desk, falling(3), width)["across"] == ["1", "2", "3"]
    assert drawn(desk, falling(60, 20), width)["across"][-1] == "60"
    assert drawn(desk, falling(1500, 20), width)["across"][-1] in ("1,400", "1,500")
    assert drawn(desk, falling(100_000, 100), width)["across"][-1] == "100K"
    assert drawn(desk, falling(100_000, 100), width, "zh")["across"][-1] == "10万"
    assert drawn(desk, falling(400, 20, start=100_000), width)["across"][-1] == "100,400"
    assert drawn(desk, falling(40, 20, start=1_000_000), width, "zh")["across"][-1] == "1,000,040"
    close = drawn(desk, {step: 10_100 + step % 2 * 40.0 for step in range(9)}, width)
    assert [label["text"] for label in close["up"]][:2] == ["10,100", "10,110"]


def test_a_single_point_stands_in_the_middle(desk):
    told = drawn(desk, {20: 4.5}, 400)
    assert (told["across"], told["dots"], told["readout"]) == (["20"], 1, "4.50")


def test_a_line_has_a_gap_where_a_number_was_not_finite(desk):
    told = drawn(desk, {1: 5.0, 2: 4.0, 3: None, 4: 3.0, 5: None, 6: None}, 400)
    assert [part.count("L") for part in told["line"].split("M")[1:]] == [1, 0]
    assert told["across"][-1] == "6", "the figure goes on to where the run is"
    assert told["readout"] == "not finite"


def test_a_run_that_is_deleted_is_said_to_be_gone_until_it_is_back(opened, run):
    hold(run)
    page = opened(may_fail=True)
    panel = show(page, "live")
    expect(panel.locator(".badge")).to_have_text("Training")
    aside = run.rename(run.with_name("aside"))
    expect(panel.locator(".badge")).to_have_text("Gone")
    expect(panel.locator("[role=alert]")).to_have_text(re.compile("^The folder of this run is gone"))
    expect(panel.locator(".state")).not_to_contain_text("left")
    expect(panel.locator(".plot").first).to_be_visible()
    aside.rename(run)
    hold(run)
    expect(panel.locator(".badge")).to_have_text("Training")
    expect(panel.locator("[role=alert]")).to_be_hidden()


def test_curves_move_while_the_run_trains(opened, run):
    hold(run)
    page = opened()
    panel = show(page, "live")
    curve = panel.locator('[data-curve="loss"]')
    expect(panel.locator(".badge")).to_have_text("Training")
    expect(panel.locator(".state")).to_contain_text("about 1 min 40 s left")
    expect(panel.locator(".tiles")).to_contain_text("Steps, of 400200")
    expect(panel.locator(".curve h4")).to_contain_text(["Loss", "Generator loss", "Detection against word frequency"])
    expect(panel.locator(".warnings li").first).to_contain_text("The gradient suddenly grew to 134, from about 2.77.")
    expect(panel.locator(".example .replaced")).to_have_text(["ban", "ana"])
    expect(panel.locator(".example")).to_contain_text("the ban me✓ana al <b>")
    page.evaluate("() => new Promise((laidOut) => requestAnimationFrame(() => requestAnimationFrame(laidOut)))")
    before = curve.get_attribute("d")
    log(run, 220, 300)
    expect(panel.locator(".tiles")).to_contain_text("Steps, of 400300")
    assert curve.get_attribute("d") != before
    assert curve.get_attribute("d").count("L") == 14
    plot = panel.locator(".plot").first
    assert "total from" in plot.get_attribute("aria-label")
    expect(panel.locator("> [role=status]")).to_have_text("Training: Pretraining · about 1 min 40 s left")
    plot.focus()
    page.keyboard.press("ArrowLeft")
    expect(panel.locator(".readout").first).to_have_text("step 300: 22.5")
    page.keyboard.press("Home")
    expect(panel.locator(".readout").first).to_have_text("step 20: 29.5")
    log(run, 320, 320)
    expect(panel.locator(".tiles")).to_contain_text("Steps, of 400320")
    expect(panel.locator(".readout").first).to_have_text("step 20: 29.5")  # what is read stays while the run goes on
    page.keyboard.press("Escape")
    expect(panel.locator(".readout").first).to_have_text("22.0")
    Journal(run / "metrics.jsonl").cut_back(200)  # as a run that goes on from a checkpoint does
    expect(panel.locator(".tiles")).to_contain_text("Steps, of 400200")
    assert curve.get_attribute("d") == before
    write_manifest(run, Manifest("run", True, {}, {}))
    expect(panel.locator(".badge")).to_have_text("Finished")
    expect(panel.locator(".state")).not_to_contain_text("left")
    write_manifest(run, Manifest("run", False, {}, {}))
