//! Thousands of backends and routes.

use std::fmt::Write;
use std::time::{Duration, Instant};

use testkit::{Config, Gateway, Listener, seconds};

use crate::page::{DRAWN, is_clean};
use crate::rig::status_of;
use testkit::browser::Browser;

/// `backends` in ten pools and `routes` on one listener.
fn large(backends: usize, routes: usize) -> Gateway {
    let mut text = String::new();
    for at in 0..routes {
        let pool = at % 10;
        write!(
            text,
            "[[listeners.routes]]\nname = \"route-{at}\"\npool = \"pool-{pool}\"\npath_prefix = \"/r{at}\"\n"
        )
        .unwrap();
    }
    for at in 0..backends {
        let pool = at % 10;
        write!(text, "[[pools.pool-{pool}.backends]]\naddress = \"127.2.{}.{}:9\"\n", at / 250, at % 250 + 1)
            .unwrap();
    }
    let config = Config::new().runtime("workers", 2).block("admin", "page", true);
    Gateway::start(config.listener(Listener::h1().key("pool", "pool-0").text(&text)))
}

pub(crate) fn three_thousand_backends_are_read_in_time() {
    let gateway = large(3000, 1000);
    let status = status_of(&gateway);
    assert_eq!(status["backends"].as_array().unwrap().len(), 3000);
    assert_eq!(status["routes"].as_array().unwrap().len(), 1000);
    let mut times: Vec<Duration> = Vec::new();
    let ticks = || gateway.process.cpu_ticks();
    let before = ticks();
    for _ in 0..7 {
        std::thread::sleep(Duration::from_millis(950));
        let begun = Instant::now();
        let size = gateway.admin_get("/status").body.len();
        times.push(begun.elapsed());
        assert!(size > 500_000);
    }
    // A tick has 10 ms: what the control thread spends on seven states is the least that can be told of it by the kernel.
    let spent = Duration::from_millis((ticks() - before) * 10) / 7;
    times.sort();
    eprintln!(
        "a state of 3000 backends and 1000 routes: {:?} from ask to answer, {spent:?} of processor",
        times[3]
    );
    // This is an unoptimised build on a machine that does other things; the bound for a release is 50 ms.
    assert!(spent < Duration::from_millis(200), "{spent:?}");
}

pub(crate) fn large_pages_stay_usable() {
    let gateway = large(3000, 1000);
    let url = format!("http://{}/", gateway.admin());
    let mut browser = Browser::start();
    browser.resize(1440, 900, false);
    browser.open(&url);
    browser.wait(DRAWN, seconds(20));
    assert_eq!(browser.evaluate("document.querySelectorAll('#backends tbody tr').length"), 50);
    let shown = browser.evaluate("document.querySelector('#backends .tail').innerText");
    assert!(shown.as_str().unwrap().contains("50 of 3000"), "{shown}");
    // From the beginning of the page to when it has drawn the first state, by the page's own clock.
    browser.open("about:blank");
    browser.open(&url);
    browser.wait(DRAWN, seconds(20));
    let took = browser.evaluate(
        "performance.getEntriesByName('first state')[0].startTime - performance.getEntriesByType('navigation')[0].responseStart",
    );
    eprintln!("first state drawn {took} ms after the page came");
    assert!(took.as_f64().unwrap() < 2000.0, "{took}");
    // One search through all rows, and one more order of them.
    let search = browser.evaluate(
        "(() => { const begun = performance.now(); const search = document.querySelector('#search'); search.value = '127.2.11.99'; \
         search.dispatchEvent(new Event('input')); return new Promise((done) => setTimeout(() => done(performance.now() - begun), 70)); })()",
    );
    browser.wait("document.querySelectorAll('#backends tbody tr').length === 1", seconds(5));
    eprintln!("a search took {search} ms, 60 of which it waits for further keys");
    browser.evaluate("document.querySelector('#search').value = ''; document.querySelector('#search').dispatchEvent(new Event('input'))");
    browser.wait("document.querySelectorAll('#backends tbody tr').length === 50", seconds(5));
    let sorted = browser.evaluate(
        "(() => { const begun = performance.now(); document.querySelector('#backends thead button').click(); return performance.now() - begun; })()",
    );
    eprintln!("another order took {sorted} ms");
    assert!(sorted.as_f64().unwrap() < 1000.0, "{sorted}");
    browser.evaluate("document.querySelector('#backends .tail button').click()");
    assert_eq!(browser.evaluate("document.querySelectorAll('#backends tbody tr').length"), 250);
    browser.evaluate("document.querySelector('#backends .fold').click()");
    assert_eq!(browser.evaluate("document.querySelector('#backends-body').checkVisibility()"), false);
    is_clean(&mut browser, &url);
}
