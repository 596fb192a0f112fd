//! The status page in Chromium.

use std::path::PathBuf;

use serde_json::Value;
use testkit::browser::Browser;
use testkit::{Backend, Config, Gateway, Listener, eventually, ms, seconds};

use crate::rig::{Desk, TOKEN, row, status_of};

/// What an accessibility checker finds.
const CHECKS: &str = include_str!("checks.js");

/// The page has drawn a state.
pub(crate) const DRAWN: &str = "document.querySelector('#state').textContent === 'serving'";

/// Opens the page in a window of a desk, and waits until it shows something.
#[track_caller]
pub(crate) fn open(url: &str) -> Browser {
    let mut browser = Browser::start();
    browser.resize(1440, 900, false);
    browser.open(url);
    browser.wait(DRAWN, seconds(10));
    browser
}

/// Nothing was complained of, and nothing was asked for elsewhere.
#[track_caller]
pub(crate) fn is_clean(browser: &mut Browser, url: &str) {
    browser.evaluate("1");
    assert_eq!(browser.errors, [] as [&str; 0]);
    let elsewhere: Vec<_> = browser.requests.iter().filter(|asked| !asked.starts_with(url)).collect();
    let own = ["about:blank"];
    assert!(elsewhere.iter().all(|asked| own.contains(&asked.as_str())), "{elsewhere:?}");
    assert!(browser.requests.iter().any(|asked| asked.ends_with("/status/events")));
}

/// A picture for whoever looks at it, where `EXPRESSGATEWAY_PICTURES` names a directory.
fn picture(browser: &mut Browser, name: &str, is_whole: bool) {
    if let Some(directory) = std::env::var_os("EXPRESSGATEWAY_PICTURES") {
        browser.picture(&PathBuf::from(directory).join(format!("{name}.png")), is_whole);
    }
}

/// The texts of the first cells of a table.
fn first_cells(browser: &mut Browser, table: &str) -> Vec<String> {
    let script = format!(
        "[...document.querySelectorAll('#{table} tbody tr')].map(row => row.cells[0].innerText.split('\\n')[0])"
    );
    let cells = browser.evaluate(&script);
    cells.as_array().unwrap().iter().map(|cell| cell.as_str().unwrap().to_owned()).collect()
}

pub(crate) fn every_table_is_filled_from_traffic() {
    let mut desk = Desk::start(|config| config);
    let text = desk.gateway.config.render().replace("readiness_settle_ms = 0", "readiness_settle_ms = 5");
    desk.gateway.reload_text(&text);
    let mut browser = open(&desk.url());
    desk.traffic(20);
    browser.wait(
        "[...document.querySelectorAll('#routes tbody tr')].some(row => row.innerText.startsWith('api') && row.innerText.includes('20'))",
        seconds(10),
    );
    std::thread::sleep(ms(1500));
    desk.traffic(5);
    let mut backends = first_cells(&mut browser, "backends");
    backends.sort();
    let mut known = [&desk.good, &desk.bad, &desk.api].map(|backend| backend.address.to_string());
    known.sort();
    assert_eq!(backends, known);
    let mut pools = first_cells(&mut browser, "pools");
    pools.sort();
    assert_eq!(pools, ["api", "web"]);
    let mut routes = first_cells(&mut browser, "routes");
    routes.sort();
    assert_eq!(routes, ["api", "old"]);
    assert_eq!(first_cells(&mut browser, "listeners").len(), 2);
    assert!(first_cells(&mut browser, "errors-by-reason").len() == 1);
    assert!(first_cells(&mut browser, "certificates")[0].ends_with("desk.pem"));
    let passes = browser.evaluate("document.querySelector('#reloads').innerText");
    assert!(passes.as_str().unwrap().contains("readiness_settle_ms"), "{passes}");
    // The numbers are those of the status.
    let status = desk.status_after(77);
    let total = row(&status["routes"], "name", "api")["requests_total"].as_u64().unwrap();
    assert_eq!(total, 25);
    browser.wait("document.querySelector('#cards').innerText.includes('77 since the start')", seconds(5));
    let drawn = browser.evaluate(
        "[...document.querySelectorAll('#cards .line, #pools .line')].every(line => line.getAttribute('d'))",
    );
    assert_eq!(drawn, Value::Bool(true), "charts have lines");
    let cells = browser.evaluate("[...document.querySelectorAll('tbody tr')].filter(row => /undefined|NaN|null|Infinity/.test(row.innerText)).map(row => row.innerText)");
    assert_eq!(cells, serde_json::json!([]));
    picture(&mut browser, "desk", true);
    browser.prefer("dark");
    picture(&mut browser, "desk-dark", true);
    browser.resize(390, 844, true);
    picture(&mut browser, "phone-dark", true);
    browser.prefer("light");
    picture(&mut browser, "phone", true);
    let wide = browser.evaluate("document.documentElement.scrollWidth <= innerWidth");
    assert_eq!(wide, Value::Bool(true), "nothing sticks out on a phone");
    is_clean(&mut browser, &desk.url());
}

pub(crate) fn an_ejected_backend_is_seen_within_two_seconds() {
    let desk = Desk::start(|config| config);
    let mut browser = open(&desk.url());
    desk.traffic(4);
    desk.fail_with(503);
    let bad = desk.bad.address.to_string();
    let mut client = desk.gateway.client();
    let begun = std::time::Instant::now();
    while !desk.gateway.messages().iter().any(|message| message == "backend ejected") {
        client.get("/").unwrap();
        assert!(begun.elapsed() < seconds(20));
    }
    let seen = browser.wait(
        &format!(
            "document.querySelector('#problems').innerText.includes('{bad}') && \
             [...document.querySelectorAll('#backends tbody tr')].some(row => row.innerText.includes('{bad}') && row.innerText.includes('ejected'))"
        ),
        seconds(10),
    );
    assert!(seen < seconds(2), "{seen:?}");
    let first = browser.evaluate("document.querySelector('#backends tbody tr').innerText");
    assert!(first.as_str().unwrap().starts_with(&bad), "what is wrong comes first: {first}");
    assert!(first.as_str().unwrap().contains("consecutive 5xx, back in"), "{first}");
    let said = browser.evaluate("document.querySelector('#announcer').textContent");
    assert_eq!(said, format!("{bad} is ejected"), "screen readers are told");
    let title = browser.evaluate("document.title");
    assert_eq!(title, "(1) ExpressGateway");
    picture(&mut browser, "ejected", true);
    is_clean(&mut browser, &desk.url());
}

pub(crate) fn an_action_works_and_needs_its_token() {
    let desk = Desk::start(|config| config);
    let good = desk.good.address.to_string();
    let mut browser = open(&desk.url());
    let state = || row(&status_of(&desk.gateway)["backends"], "backend", &good)["state"].clone();
    // By keys alone: the button is found by its name, and has the focus.
    let drain = format!("document.querySelector('[aria-label=\"Drain {good} of web\"]')");
    browser.evaluate(&format!("{drain}.focus()"));
    browser.press("Enter");
    browser.wait("document.activeElement.id === 'token-input'", seconds(5));
    picture(&mut browser, "dialog", false);
    browser.press("Enter");
    browser
        .wait("document.querySelector('#dialog-error').textContent === 'The token is needed.'", seconds(5));
    browser.type_text("wrong");
    browser.press("Enter");
    browser
        .wait("document.querySelector('#dialog-error').textContent.includes('missing or wrong')", seconds(5));
    assert_eq!(state(), "up", "nothing has happened without the token");
    // The browser notes each refused request, which is meant here.
    browser.errors.retain(|error| !error.contains("403"));
    browser.evaluate("document.querySelector('#token-input').value = ''");
    browser.type_text(TOKEN);
    browser.press("Enter");
    browser.wait("!document.querySelector('#dialog').open", seconds(5));
    assert_eq!(state(), "draining");
    browser.wait(
        &format!("document.querySelector('[aria-label=\"Undrain {good} of web\"]') !== null"),
        seconds(2),
    );
    // The focus is where it was, and the token is not asked for again.
    browser.press("Enter");
    browser.wait("document.activeElement.id === 'dialog-confirm'", seconds(5));
    browser.press("Enter");
    eventually("it is back", seconds(5), || state() == "up");
    let weight = format!("document.querySelector('[aria-label=\"Weight of {good} of web\"]')");
    browser.wait("!document.querySelector('#dialog').open", seconds(5));
    browser.evaluate(&format!("{weight}.click()"));
    browser.evaluate(
        "document.querySelector('#weight').value = '7'; document.querySelector('#dialog-confirm').click()",
    );
    eventually("it has the weight", seconds(5), || {
        row(&status_of(&desk.gateway)["backends"], "backend", &good)["weight"] == 7
    });
    browser.wait("!document.querySelector('#dialog').open", seconds(5));
    browser.evaluate(
        "document.querySelector('#reload').click(); document.querySelector('#dialog-confirm').click()",
    );
    browser.wait("document.querySelector('#reloads').innerText.includes('unchanged')", seconds(5));
    browser.evaluate("document.querySelector('#reload').click()");
    browser.press("Escape");
    browser.wait("!document.querySelector('#dialog').open", seconds(5));
    assert_eq!(
        status_of(&desk.gateway)["reloads"].as_array().unwrap().len(),
        1,
        "what is cancelled is not done"
    );
    let kept = browser.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])");
    assert!(!kept.as_str().unwrap().contains(TOKEN), "the token is kept nowhere: {kept}");
    is_clean(&mut browser, &desk.url());
}

pub(crate) fn everything_has_a_name_and_contrast() {
    let desk = Desk::start(|config| config);
    desk.fail_with(503);
    desk.traffic(10);
    let mut browser = open(&desk.url());
    browser.wait("document.querySelector('#attention').checkVisibility()", seconds(5));
    for (width, height, is_phone) in [(1440, 900, false), (390, 844, true)] {
        browser.resize(width, height, is_phone);
        for scheme in ["light", "dark"] {
            browser.prefer(scheme);
            std::thread::sleep(ms(400));
            assert_eq!(browser.evaluate(CHECKS), serde_json::json!([]), "{scheme}, {width} wide");
            browser.evaluate("document.querySelector('#reload').click()");
            assert_eq!(browser.evaluate(CHECKS), serde_json::json!([]), "dialog, {scheme}, {width} wide");
            browser.evaluate("document.querySelector('#dialog-cancel').click()");
        }
    }
    // Whoever uses keys sees where they are, and comes to everything that can be pressed.
    browser.resize(1440, 900, false);
    browser.evaluate("document.activeElement.blur(); scrollTo(0, 0)");
    let mut reached = std::collections::BTreeSet::new();
    let wanted = browser.evaluate("[...document.querySelectorAll('button, a[href], input')].filter(one => one.checkVisibility()).length");
    let wanted = wanted.as_u64().unwrap();
    for _ in 0..wanted + 20 {
        browser.press("Tab");
        let at = browser.evaluate(
            "(() => { const one = document.activeElement; const style = getComputedStyle(one); \
             if (one === document.body) return null; \
             return { at: [...document.querySelectorAll('*')].indexOf(one), name: one.outerHTML.slice(0, 160), seen: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2, \
             within: one.getBoundingClientRect().width > 0, pressed: one.matches('button, a[href], input') }; })()",
        );
        if at.is_null() {
            break;
        }
        assert_eq!((&at["seen"], &at["within"]), (&Value::Bool(true), &Value::Bool(true)), "{at}");
        if at["pressed"] == true {
            reached.insert((at["at"].as_u64().unwrap(), at["name"].as_str().unwrap().to_owned()));
        }
    }
    assert!(reached.len() as u64 >= wanted - 2, "{} of {wanted}: {reached:#?}", reached.len());
    // A filter narrows all tables, and Escape takes it back.
    browser.evaluate("document.activeElement.blur()");
    browser.press("/");
    browser.type_text("pool:api");
    browser.wait("document.querySelectorAll('#backends tbody tr').length === 1", seconds(3));
    browser.press("Escape");
    browser.wait("document.querySelectorAll('#backends tbody tr').length === 3", seconds(3));
    browser.evaluate("document.querySelector('#backends thead button').click()");
    assert_eq!(
        browser.evaluate("document.querySelector('#backends thead th').getAttribute('aria-sort')"),
        "ascending"
    );
    is_clean(&mut browser, &desk.url());
}

pub(crate) fn d_04_script_in_a_name_is_shown_as_text() {
    let directory = tempfile::tempdir().unwrap();
    // A backend's address is the one name with markup that a file can have; a refused file is quoted with what it says.
    let markup = "<img src=x onerror=document.title='owned'>";
    let path = directory.path().join(markup);
    let backend = Backend::standard("one");
    let config = Config::new().block("admin", "page", true).runtime("workers", 1);
    let listener = Listener::h1().backend(backend.address).backend(format!("unix:{}", path.display()));
    let mut gateway = Gateway::start(config.listener(listener));
    let file = gateway.config.render();
    gateway.reload_text(
        &file.replace(
            "workers = 1",
            &format!("workers = \"{markup}<script>document.title='owned'</script>\""),
        ),
    );
    let url = format!("http://{}/", gateway.admin());
    let mut browser = open(&url);
    browser.wait("document.querySelector('#backends').innerText.includes('onerror')", seconds(5));
    browser.wait("document.querySelector('#reloads').innerText.includes('<img src=x')", seconds(5));
    browser.wait("document.querySelector('#problems').innerText.includes('onerror')", seconds(5));
    std::thread::sleep(ms(300));
    assert_eq!(
        browser.evaluate("document.querySelectorAll('main img, main script, main [onerror]').length"),
        0
    );
    assert!(browser.evaluate("document.title").as_str().unwrap().ends_with("ExpressGateway"));
    is_clean(&mut browser, &url);
    // Even a script of the page's own that makes markup of a text is stopped, and none that is written into the page runs.
    let blocked = browser.evaluate(
        "(() => { try { document.body.insertAdjacentHTML('beforeend', '<p>'); return 'made'; } catch (error) { return error.name; } })()",
    );
    assert_eq!(blocked, "TypeError", "trusted types");
    browser.evaluate("{ const script = document.createElement('script'); script.append('document.title = \"owned\"'); document.head.append(script); }");
    assert!(browser.evaluate("document.title").as_str().unwrap().ends_with("ExpressGateway"));
}
