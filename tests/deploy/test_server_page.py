"""The page of ``hcoatnet serve`` in a real browser, before the real server."""

import json
import os
import re
import shlex
import shutil
import subprocess
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from server_harness import colour_model, photo_bytes, running

import hcoatnet.deploy.server
from hcoatnet.deploy.classifier import Classifier
from hcoatnet.deploy.server.limits import Limits
from hcoatnet.deploy.server.security import Access
from hcoatnet.deploy.server.served import Served

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

FILES = Path(hcoatnet.deploy.server.__file__).parent / "page"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TOKEN = "a-token-of-the-tests"
LONG = "congenital ichthyosiform erythroderma"
RED, GREY = (200, 40, 40), (120, 120, 120)
PHONE = {"viewport": {"width": 320, "height": 640}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def servers(browser):
    """Starts a server of a kind when it is first asked for."""
    kinds = {
        "plain": dict,
        "bare": lambda: {"served": bare_model()},
        "guarded": lambda: {"access": Access(token=TOKEN)},
        "narrow": lambda: {"limits": Limits(concurrency=1, queue=0, bytes=20_000)},
    }
    started = {}
    with ExitStack() as stack:

        def serve(kind):
            if kind not in started:
                started[kind] = stack.enter_context(running(**kinds[kind]()))
            return started[kind]

        yield serve


def bare_model():
    """A model that prunes nothing, and whose calibration supports neither sets nor a threshold."""
    served = colour_model(prunes=False, classes=("blue", "green", LONG))
    rules = replace(
        served.classifier.rules, thresholds=None, no_sets_because="Too few photos.", abstain_below=None,
        no_threshold_because="No threshold keeps the error.",
    )  # fmt: skip
    return Served(Classifier(served.classifier.backend, rules), served.facts)


@pytest.fixture
def visit(browser):
    """Opens a page of a server; nothing may go wrong in it, and nothing may be asked of another host."""
    contexts, complaints = [], []

    def visit(server, path="/", **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: said.type == "error" and "Failed to load" not in said.text and complaints.append(said.text))  # fmt: skip
        page.on("request", lambda request: request.url.startswith((server.url, "blob:")) or complaints.append(request.url))  # fmt: skip
        page.goto(server.url + path)
        page.wait_for_selector("#model:not([hidden]), #token-form:not([hidden]), #shapes:not([hidden])")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []


def photo(name="lesion.jpg", colour=RED, **options):
    return {"name": name, "mimeType": "image/jpeg", "buffer": photo_bytes(colour, **options)}


def choose(page, *files):
    page.set_input_files("#files", list(files))


def answered(page, count=1):
    playwright.expect(page.locator(".probabilities")).to_have_count(count, timeout=20_000)
    return page.locator("article")


def in_percent(share):
    return "< 1 %" if share < 0.01 else "> 99 %" if share > 0.99 else f"{100 * share:.0f} %"


def overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def accessible(page):
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def drawn(page):
    """How dark the middle of each square is drawn (0–255), and whether there is a frame around it."""
    return page.evaluate(
        """([rows, columns]) => {
      const canvas = document.querySelector("canvas");
      const pixel = (x, y) => canvas.getContext("2d").getImageData(x * canvas.width, y * canvas.height, 1, 1).data[3];
      return [...Array(rows * columns).keys()].map((at) => {
        const [x, y] = [(at % columns) / columns, Math.floor(at / columns) / rows];
        return [pixel(x + 0.5 / columns, y + 0.5 / rows), pixel(x + 0.02 / columns, y + 0.5 / rows) === 255];
      });
    }""",
        [4, 4],
    )


def test_files_name_no_other_host_and_hold_no_inline_code():
    pages = [*FILES.glob("*.html"), *FILES.glob("*.js"), *FILES.glob("*.css"), *FILES.glob("*.svg")]
    assert len(pages) >= 8
    for file in pages:
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(
            r"https?://|\burl\(|innerHTML|insertAdjacentHTML|document\.write|localStorage|sessionStorage", text
        ), file
        assert not re.search(r"<style|<script>|\sstyle=|\son[a-z]+=", text) or file.suffix != ".html", file


def test_a_bundle_answers_on_the_page_as_in_the_interface(visit, run_bundle):
    with running(served=Served.open(run_bundle)) as server:
        page = visit(server)
        assert page.title().startswith(server.served.facts["name"])
        choose(page, photo("one.jpg"), photo("two.jpg", GREY))
        cards = answered(page, 2)
        assert cards.locator("h3").all_inner_texts() == ["one.jpg", "two.jpg"]
        files = {"photos": ("one.jpg", photo_bytes(RED))}
        told = httpx.post(f"{server.url}/v1/predict?trace=true", files=files).json()["answers"][0]
        rows = cards.first.locator("tbody tr")
        shown = {row.locator("th").inner_text(): row.locator("b").inner_text() for row in rows.all()}
        assert shown == {name: in_percent(share) for name, share in told["probabilities"].items()}
        assert told["top_class"] == rows.first.locator("th").inner_text()
        assert (cards.first.locator(".warning").count() == 1) is told["abstain"]
        slider = cards.first.get_by_role("slider", name="Stage")
        assert slider.get_attribute("max") == str(len(told["traces"][0]["stages"]))
        slider.fill("1")
        cut = told["traces"][0]["stages"][0]
        assert f"{len(cut['kept'])} of {len(cut['positions'])} squares kept" in slider.get_attribute("aria-valuetext")
        page.locator("summary", has_text="Intended use").click()
        assert "missing" in page.locator("details[open] .missing").first.inner_text()
        assert page.get_by_text("Research software, not a diagnosis.").first.is_visible()


def test_the_slider_draws_and_tells_what_was_kept(visit, servers):
    page = visit(servers("plain"))
    choose(page, photo())
    answered(page)
    sent = {"photos": ("lesion.jpg", photo_bytes(RED))}
    traces = httpx.post(f"{servers('plain').url}/v1/predict?trace=true", files=sent).json()["answers"][0]["traces"]
    slider, canvas = page.get_by_role("slider"), page.locator("canvas")
    assert drawn(page) == [[0, False]] * 16
    for member in (0, 1):
        page.get_by_label("Model of the ensemble").select_option(str(member))
        for stage in (1, 2):
            slider.fill(str(stage))
            kept = traces[member]["stages"][stage - 1]["kept"]
            assert drawn(page) == [[0, True] if at in kept else [179, False] for at in range(16)]
            label = canvas.get_attribute("aria-label")
            assert f"After cut {stage} of 2: {len(kept)} of 16 squares kept." in label
            assert len(re.findall(r"row \d: ", label)) == len({at // 4 for at in kept})
    page.get_by_label("Show importance").uncheck()
    assert not any(frame for _, frame in drawn(page))


def test_answer_and_abstention_in_words(visit, servers):
    page = visit(servers("plain"))
    choose(page, photo("sure.jpg"), photo("unsure.jpg", GREY))
    sure, unsure = answered(page, 2).all()
    assert re.match(r"Most likely\s*red 9\d %", sure.locator(".verdict").inner_text())
    assert sure.locator(".chosen th").all_inner_texts() == ["red"]
    assert "For about 90 % of photos like those it was calibrated on" in sure.inner_text()
    assert unsure.locator(".verdict").count() == 0
    assert "The model gives no answer.\n\nLeave this photo to a person" in unsure.locator(".warning").inner_text()
    assert page.locator("#contents li").all_inner_texts()[1] == "unsure.jpg no answer"
    assert page.locator("#status").inner_text().startswith("unsure.jpg: The model gives no answer.")
    sure.get_by_role("button", name="Remove sure.jpg").click()
    assert page.locator("article").count() == 1
    address = page.locator("article img").get_attribute("src")
    page.get_by_role("button", name="Remove all photos").click()
    assert page.evaluate("document.activeElement.id") == "choose"
    gone = "(address) => new Promise((end) => { const one = new Image(); one.onload = () => end(0); one.onerror = () => end(1); one.src = address; })"
    assert page.evaluate(gone, address) == 1


def test_what_a_model_cannot_do_is_said(visit, servers):
    page = visit(servers("bare"), **PHONE)
    choose(page, photo("a-very-long-name-of-a-photo-" * 4 + ".jpg"))
    card = answered(page)
    assert "This model keeps all of the photo: there is nothing to show." in card.inner_text()
    assert page.get_by_role("slider").count() == 0
    assert "No prediction set: Too few photos." in card.inner_text()
    assert card.locator("thead th").all_inner_texts() == ["Class", "Probability"]
    assert "It gives no answer to any photo. No threshold keeps the error." in page.locator("#trust").inner_text()
    assert overflow(page) == 0
    lines = card.locator("tbody th", has_text=LONG).evaluate(
        "cell => cell.clientHeight / parseFloat(getComputedStyle(cell).lineHeight)"
    )
    assert lines < 6


def test_many_classes_are_folded_away(visit, servers):
    page = visit(servers("plain"))
    page.evaluate("""async () => {
      const { probabilityTable } = await import("/answer.js");
      const probabilities = Object.fromEntries([...Array(20).keys()].map((at) => [`class ${at}`, (20 - at) / 210]));
      document.querySelector("main").append(probabilityTable({ probabilities, prediction_set: ["class 0", "class 12"] }, { level: 0.9 }));
    }""")
    visible = page.locator("tbody tr:visible")
    assert visible.locator("th").all_inner_texts() == [f"class {at}" for at in (*range(8), 12)]
    page.get_by_role("button", name="11 less likely classes").click()
    assert visible.count() == 20
    page.get_by_role("button", name="11 less likely classes").click()
    assert visible.count() == 9


def test_places_in_words(visit, servers):
    page = visit(servers("plain"))
    trace = {"rows": 2, "columns": 6, "stages": [{"positions": list(range(12)), "scores": [1 / 78 * at for at in range(1, 13)], "kept": [0, 1, 2, 4, 6, 7, 8, 9, 10, 11]}]}  # fmt: skip
    said = page.evaluate(
        'trace => import("/kept.js").then(({ places, viewOf }) => places(trace, viewOf(trace, 1)))', trace
    )
    assert said.endswith("from the top: row 1: 1 to 3 and 5; row 2: all. Most important: row 2, column 6.")


def test_errors_stay_with_their_photo(visit, servers):
    page = visit(servers("narrow"))
    text = {"name": "<img src=x onerror=alert(1)>.txt", "mimeType": "text/plain", "buffer": b"no photo"}
    choose(page, text, photo("large.png", kind="PNG", size=(300, 300)), photo("good.jpg"))
    answered(page)
    wrong, large, good = page.locator("article").all()
    assert wrong.locator("h3").inner_text() == text["name"]
    assert "Expected: JPEG, PNG" in wrong.locator(".warning").inner_text()
    assert "The server takes 0.0 MB" in large.locator(".warning").inner_text()
    assert good.locator(".warning").count() == 0
    accessible(page)


def test_a_busy_server_is_asked_again(visit, servers):
    server = servers("narrow")
    page = visit(server)
    server.backend.hold.clear()
    sent = {"photos": ("first.jpg", photo_bytes(RED))}
    other = threading.Thread(
        target=httpx.post, args=[f"{server.url}/v1/predict"], kwargs={"files": sent, "timeout": 30}
    )
    other.start()
    while server.backend.running == 0:
        page.wait_for_timeout(10)
    choose(page, photo())
    page.get_by_text("The server is busy. Trying again in").wait_for()
    server.backend.hold.set()
    other.join()
    answered(page)


def test_a_server_that_is_gone_is_said(visit, browser):
    with running() as server:
        page = visit(server)
    choose(page, photo())
    page.locator("article").get_by_text("The server does not answer.").wait_for()
    assert page.get_by_role("button", name="Try again").is_visible()


def test_the_token_is_asked_for_and_stored_nowhere(visit, servers):
    page = visit(servers("guarded"))
    accessible(page)
    choose(page, photo())
    assert page.evaluate("document.activeElement.id") == "token"
    page.keyboard.type("not-the-right-token")
    page.keyboard.press("Enter")
    page.get_by_text("The server does not accept this token.").wait_for()
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Use it").click()
    answered(page)
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie, location.search]") == [
        0,
        0,
        "",
        "",
    ]


def test_by_keyboard_alone(visit, servers):
    page = visit(servers("plain"))
    page.on("filechooser", lambda chooser: chooser.set_files([photo("one.jpg"), photo("two.jpg", GREY)]))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "choose"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    answered(page, 2)
    seen = []
    for _ in range(20):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.type || document.activeElement.textContent"))
        if seen[-1] == "range":
            break
    assert seen == ["button", "one.jpg", "two.jpg", "button", "How far to trust it", "select-one", "range"]
    for key, start in (
        ("ArrowRight", "After cut 1 of 2"),
        ("ArrowRight", "After cut 2 of 2"),
        ("Home", "Before the first cut"),
    ):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.getAttribute('aria-valuetext')").startswith(start)
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("End")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert not any(frame for _, frame in drawn(page))


def test_photos_are_dropped_and_pasted(visit, servers):
    page = visit(servers("plain"))
    page.evaluate("""(bytes) => {
      const dropped = new DataTransfer();
      dropped.items.add(new File([new Uint8Array(bytes)], "dropped.jpg", { type: "image/jpeg" }));
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true }));
      const pasted = new DataTransfer();
      pasted.items.add(new File([new Uint8Array(bytes)], "image.png", { type: "image/png" }));
      document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: pasted, bubbles: true }));
    }""", list(photo_bytes(RED)))  # fmt: skip
    assert answered(page, 2).locator("h3").all_inner_texts() == ["pasted image.png", "dropped.jpg"]


def test_a_phone_shows_it_upright_and_without_scrolling_sideways(visit, servers):
    page = visit(servers("plain"), **PHONE)
    assert overflow(page) == 0
    assert page.get_by_role("button", name="Take a photo").is_visible()
    assert page.locator("#camera").get_attribute("capture") == "environment"
    accessible(page)
    turned = photo_bytes(
        RED, size=(80, 40), exif=bytes.fromhex("45786966000049492a0008000000010012010300010000000600000000000000")
    )
    choose(page, {"name": "turned.jpg", "mimeType": "image/jpeg", "buffer": turned})
    answered(page)
    page.get_by_role("slider").fill("1")
    assert overflow(page) == 0
    assert page.evaluate("[canvas = document.querySelector('canvas')].map(one => [one.width, one.height])[0]") == [
        600,
        1200,
    ]
    box = page.locator("article img").bounding_box()
    assert box["height"] == pytest.approx(2 * box["width"], rel=0.01)
    accessible(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_people_out(visit, servers, scheme):
    page = visit(servers("plain"), color_scheme=scheme, reduced_motion="reduce")
    accessible(page)
    choose(page, photo("one.jpg"), photo("two.jpg", GREY))
    answered(page, 2)
    page.get_by_role("slider").first.fill("2")
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    accessible(page)
    red, green, blue = map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor")))
    assert (red + green + blue > 384) is (scheme == "light")
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    page.emulate_media(media="print")
    assert not page.locator("#intake").is_visible()
    assert page.locator(".verdict").first.is_visible()


@pytest.mark.parametrize("options", [{"color_scheme": "dark"}, PHONE], ids=["dark", "phone"])
def test_the_interface_is_described(visit, servers, options):
    server = servers("guarded")
    page = visit(server, "/docs", **options)
    described = httpx.get(f"{server.url}/openapi.json").json()
    operations = [f"{method.upper()} {path}" for path, methods in described["paths"].items() for method in methods]
    assert page.locator("#operations h2").all_inner_texts() == operations
    assert page.locator("#shapes h3").all_inner_texts() == list(described["components"]["schemas"])
    for link in page.locator("main a[href^='#']").all():
        assert page.locator(link.get_attribute("href")).count() == 1
    assert overflow(page) == 0
    accessible(page)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_the_examples_of_the_description_work(visit, servers, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(photo_bytes(RED))
    page = visit(servers("guarded"), "/docs")
    examples = page.get_by_label("Example", exact=True).all_inner_texts()
    assert len(examples) == 4
    for example in examples:
        command = shlex.split(example.replace("$HCOATNET_TOKEN", TOKEN))
        done = subprocess.run(
            [*command, "--fail", "--silent"], capture_output=True, cwd=tmp_path, env={**os.environ, "NO_PROXY": "*"}
        )
        assert done.returncode == 0, example
        assert json.loads(done.stdout)
