//! Error pages: what clients are told in place of the gateway's short texts, and of backends' error responses where these are intercepted.
//!
//! A page is a file that goes out as it stands: nothing of a request is ever put into it (attack R-27). A client that prefers JSON gets a
//! problem of RFC 9457 instead.

use std::ops::RangeInclusive;
use std::path::PathBuf;

/// What clients are told with statuses of errors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErrorPages {
    /// The pages; no status has two.
    pub pages: Vec<ErrorPage>,
    /// Whether clients that prefer JSON are told a problem of RFC 9457.
    pub problem_json: bool,
    /// Whether backends' responses with the statuses of the pages are replaced as well.
    pub intercept: bool,
}

/// A page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErrorPage {
    /// The statuses that it is for.
    pub statuses: RangeInclusive<u16>,
    /// The file that it stands in.
    pub file: PathBuf,
}

/// What a client is told with a status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorForm<'a> {
    /// A problem of RFC 9457.
    Problem,
    /// A page.
    Page(&'a ErrorPage),
    /// What is told without pages.
    Plain,
}

impl ErrorPage {
    /// Reads `"500-504: /path"` or `"404: /path"`. Statuses are those of errors, 400 to 599.
    pub fn parse(text: &str) -> Option<Self> {
        let (statuses, file) = text.split_once(':')?;
        let (first, last) = match statuses.split_once('-') {
            Some((first, last)) => (status(first)?, status(last)?),
            None => (status(statuses)?, status(statuses)?),
        };
        let file = file.trim();
        (first <= last && !file.is_empty()).then(|| Self { statuses: first..=last, file: file.into() })
    }

    /// What the page is, by the end of its file's name; HTML where that says nothing.
    pub fn content_type(&self) -> &'static str {
        let extension = self.file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "json" => "application/json",
            "xml" => "application/xml",
            "txt" => "text/plain; charset=utf-8",
            _ => "text/html; charset=utf-8",
        }
    }
}

fn status(text: &str) -> Option<u16> {
    let text = text.trim();
    let is_number = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|status| is_number && (400..600).contains(status))
}

impl ErrorPages {
    /// The page of a status.
    pub fn page(&self, status: u16) -> Option<&ErrorPage> {
        self.pages.iter().find(|page| page.statuses.contains(&status))
    }

    /// What a client whose requests have these `Accept` fields is told with a status of the gateway's own.
    pub fn form<'a>(&self, status: u16, accept: impl Iterator<Item = &'a [u8]>) -> ErrorForm<'_> {
        if !(400..600).contains(&status) {
            return ErrorForm::Plain;
        }
        if self.problem_json && prefers_json(accept) {
            return ErrorForm::Problem;
        }
        self.page(status).map_or(ErrorForm::Plain, ErrorForm::Page)
    }

    /// Whether what a client is told with a status of the gateway's own depends on its `Accept`.
    pub fn varies(&self, status: u16) -> bool {
        self.problem_json && (400..600).contains(&status)
    }

    /// Whether a backend's response with this status is replaced.
    pub fn intercepts(&self, status: u16) -> bool {
        self.intercept && self.page(status).is_some()
    }
}

/// How much a client wants a type of content: its quality in thousandths, and how precisely that type was named.
type Want = (u32, u8);

/// Whether a client prefers JSON to HTML, by its `Accept` fields (RFC 9110 §12.5.1): it gives JSON the higher quality, or of equal ones names
/// JSON more precisely. Without a field it does not.
pub fn prefers_json<'a>(accept: impl Iterator<Item = &'a [u8]>) -> bool {
    let (mut problem, mut json, mut html): (Want, Want, Want) = ((0, 0), (0, 0), (0, 0));
    for line in accept {
        for range in line.split(|byte| *byte == b',') {
            let mut parts = range.split(|byte| *byte == b';');
            let name = parts.next().unwrap_or_default().trim_ascii();
            let quality = quality(parts);
            for (want, of, sub) in [
                (&mut problem, &b"application"[..], &b"problem+json"[..]),
                (&mut json, b"application", b"json"),
                (&mut html, b"text", b"html"),
            ] {
                // The most precise range decides, whatever its quality.
                if let Some(precise) = meets(name, of, sub).filter(|precise| *precise > want.1) {
                    *want = (quality, precise);
                }
            }
        }
    }
    let best = problem.max(json);
    best.0 > 0 && best > html
}

/// How precisely a range names a type: 1 for `*/*`, 2 for `type/*`, 3 for the type itself.
fn meets(range: &[u8], of: &[u8], sub: &[u8]) -> Option<u8> {
    let at = range.iter().position(|byte| *byte == b'/')?;
    let (first, second) = (range.get(..at)?, range.get(at.saturating_add(1)..)?);
    match (first, second) {
        (b"*", b"*") => Some(1),
        (_, b"*") if first.eq_ignore_ascii_case(of) => Some(2),
        _ if first.eq_ignore_ascii_case(of) && second.eq_ignore_ascii_case(sub) => Some(3),
        _ => None,
    }
}

/// The quality among the parameters of a range, in thousandths: 1000 without one, 0 for one that cannot be read.
fn quality<'a>(mut parameters: impl Iterator<Item = &'a [u8]>) -> u32 {
    let found = parameters.find_map(|parameter| {
        let (name, value) = parameter.trim_ascii().split_at_checked(2)?;
        name.eq_ignore_ascii_case(b"q=").then_some(value)
    });
    let Some(value) = found else { return 1000 };
    let (whole, fraction) = match value {
        [whole] => (*whole, &[][..]),
        [whole, b'.', fraction @ ..] => (*whole, fraction),
        _ => return 0,
    };
    if fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let digits = [0, 1, 2].map(|at| u32::from(fraction.get(at).copied().unwrap_or(b'0').wrapping_sub(b'0')));
    let thousandths =
        digits.into_iter().fold(0u32, |sum, digit| sum.saturating_mul(10).saturating_add(digit));
    match whole {
        b'1' => 1000,
        b'0' => thousandths,
        _ => 0,
    }
}

/// A problem of RFC 9457, as JSON: what happened, why (`reason`, a word of the gateway's own), and the ID of the request. Nothing else of a
/// request is in it, and an ID that is not made of letters, digits, `.`, `_` and `-` is left out.
pub fn problem(status: u16, title: &str, reason: Option<&str>, id: Option<&[u8]>) -> String {
    let is_plain = |id: &[u8]| {
        !id.is_empty()
            && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    let id = id.filter(|id| is_plain(id)).and_then(|id| std::str::from_utf8(id).ok());
    let mut text = format!("{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status}");
    if let Some(reason) = reason {
        text += &format!(",\"detail\":\"{reason}\"");
    }
    if let Some(id) = id {
        text += &format!(",\"instance\":\"{id}\"");
    }
    text + "}\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SplitMix64;

    fn prefers(accept: &str) -> bool {
        prefers_json(std::iter::once(accept.as_bytes()))
    }

    #[test]
    fn who_prefers_json() {
        for accept in [
            "application/problem+json",
            "application/json",
            "Application/JSON",
            "application/json, text/plain, */*",
            "application/json, text/javascript, */*; q=0.01",
            "application/*",
            "text/html;q=0.5, application/json;q=0.501",
            "text/html;q=0.9, application/json ; q=1.0",
            "application/problem+json, application/json;q=0.1, text/html;q=0.5",
            "text/html;q=0, */*, application/json;q=0.1",
        ] {
            assert!(prefers(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/html",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
            "text/html, application/json",
            "application/json;q=0",
            "application/json;q=0.5, text/html;q=0.5",
            "application/json;q=x, */*",
            "application/json;q=1.1.1, text/html;q=0.1",
            "*/*, application/json;q=0.1",
            "json",
            ",;q=,/,",
        ] {
            assert!(!prefers(accept), "{accept}");
        }
        assert!(!prefers_json(std::iter::empty()));
        assert!(prefers_json([&b"text/html;q=0.1"[..], b"application/json"].into_iter()));
    }

    #[test]
    fn any_bytes_are_read() {
        let mut rng = SplitMix64::new(9);
        let alphabet = b"application/json,text/html;q=0.1*/* \xff\"";
        for _ in 0..20_000 {
            let length = rng.below(60);
            let byte = |at: u64| alphabet[usize::try_from(at).unwrap()];
            let line: Vec<u8> =
                (0..length).map(|_| byte(rng.below(u64::try_from(alphabet.len()).unwrap()))).collect();
            let _ = prefers_json(std::iter::once(&*line));
            let _ = ErrorPage::parse(&String::from_utf8_lossy(&line));
        }
    }

    #[test]
    fn pages_are_for_statuses_of_errors() {
        let page = ErrorPage::parse("500-504: /a b.HTML").unwrap();
        assert_eq!((page.statuses.clone(), page.file.to_str()), (500..=504, Some("/a b.HTML")));
        assert_eq!(page.content_type(), "text/html; charset=utf-8");
        assert_eq!(ErrorPage::parse("404:x.json").unwrap().content_type(), "application/json");
        for wrong in [
            "404",
            "404:",
            "404: ",
            "399: /a",
            "600: /a",
            "504-500: /a",
            "5xx: /a",
            "4040: /a",
            "+40: /a",
            ": /a",
        ] {
            assert_eq!(ErrorPage::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_form_follows_status_and_wish() {
        let json = || std::iter::once(&b"application/json"[..]);
        let pages = ErrorPages {
            pages: vec![ErrorPage::parse("500-504: /a").unwrap()],
            problem_json: true,
            intercept: true,
        };
        let page = pages.page(503).unwrap();
        assert_eq!(pages.form(503, std::iter::empty()), ErrorForm::Page(page));
        assert_eq!(pages.form(404, std::iter::empty()), ErrorForm::Plain);
        assert_eq!(pages.form(404, json()), ErrorForm::Problem);
        assert_eq!(pages.form(200, json()), ErrorForm::Plain);
        assert!(pages.intercepts(500) && !pages.intercepts(505));
        let plain = ErrorPages { problem_json: false, intercept: false, ..pages.clone() };
        assert_eq!(plain.form(503, json()), ErrorForm::Page(page));
        assert!(!plain.intercepts(500));
    }

    #[test]
    fn r_27_nothing_of_a_request_gets_into_a_problem_but_a_plain_id() {
        let text = problem(503, "Service Unavailable", Some("no_backend"), Some(b"01-a.b_c"));
        let expected = "{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\"detail\":\"no_backend\",\
                        \"instance\":\"01-a.b_c\"}\n";
        assert_eq!(text, expected);
        for id in [&b"\"},{"[..], b"<script>", b"", b"\xff", b"a b"] {
            assert!(!problem(404, "Not Found", None, Some(id)).contains("instance"));
        }
    }
}
