//! The status page: files that stand in the program, and how browsers are told to treat them.
//!
//! The files say nothing of this process. What the page shows comes from `/status/events`, and what it changes from `POST`s, each of which
//! decides by itself who may ask.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageFile {
    path: &'static str,
    pub(super) content_type: &'static str,
    pub(super) text: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

static FILES: &[PageFile] = &[
    PageFile { path: "/", content_type: "text/html; charset=utf-8", text: include_str!("page/index.html") },
    PageFile {
        path: "/page/style.css",
        content_type: "text/css; charset=utf-8",
        text: include_str!("page/style.css"),
    },
    PageFile { path: "/page/icon.svg", content_type: "image/svg+xml", text: include_str!("page/icon.svg") },
    PageFile { path: "/page/main.js", content_type: SCRIPT, text: include_str!("page/main.js") },
    PageFile { path: "/page/feed.js", content_type: SCRIPT, text: include_str!("page/feed.js") },
    PageFile { path: "/page/table.js", content_type: SCRIPT, text: include_str!("page/table.js") },
    PageFile { path: "/page/views.js", content_type: SCRIPT, text: include_str!("page/views.js") },
    PageFile { path: "/page/actions.js", content_type: SCRIPT, text: include_str!("page/actions.js") },
    PageFile { path: "/page/dom.js", content_type: SCRIPT, text: include_str!("page/dom.js") },
];

/// The file at this path.
pub(super) fn file(path: &str) -> Option<&'static PageFile> {
    FILES.iter().find(|file| file.path == path)
}

/// Fields of every answer of the admin port: nothing that it says is shown inside another page, run as another type, or kept by a cache; its own
/// page loads nothing from elsewhere, and runs no script but its files (attack rows D-03, D-04).
pub(super) fn harden(fields: &mut HeaderMap) {
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        fields.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

/// Where the browser knows trusted types, a script of the page cannot make markup of a text even by mistake.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";
