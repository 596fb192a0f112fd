//! Which path and host a backend is asked for in place of those that the client asked for.

use crate::route::location::NewPath;
use crate::route::pattern::RouteCaptures;
use crate::route::{path, readings};

/// What becomes of path and host.
#[derive(Clone, PartialEq, Debug)]
pub struct Rewrite {
    /// Another host, with or without a port.
    pub host: Option<Box<[u8]>>,
    /// Another path.
    pub path: NewPath,
}

/// A path came out that may not be forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RewriteFault;

impl Rewrite {
    /// The path in place of a canonical one, of which the first `matched` bytes are the prefix of the route; `None` where nothing changes.
    ///
    /// What comes out is canonical by itself. Unless `allow_ambiguous`, a lenient backend reads it as nothing outside of what the operator
    /// wrote: of the new prefix, or of the path up to its first captured text (attack R-08).
    ///
    /// # Errors
    /// When that cannot be.
    pub fn path(
        &self,
        asked: &[u8],
        matched: usize,
        captures: &RouteCaptures<'_>,
        allow_ambiguous: bool,
    ) -> Result<Option<Vec<u8>>, RewriteFault> {
        let Some(made) = self.path.of(asked, matched, captures) else { return Ok(None) };
        if path::is_plain(&made) {
            return Ok(Some(made));
        }
        if !path::canonical(&made, false).is_ok_and(|canonical| canonical == made) {
            return Err(RewriteFault);
        }
        if !allow_ambiguous && path::is_suspicious(&made) {
            let floor = self.path.floor();
            let mut stays = true;
            let read = readings::each(&made, |reading| {
                stays &= reading.is_some_and(|reading| is_within(reading, floor));
                stays
            });
            if read.is_err() || !stays {
                return Err(RewriteFault);
            }
        }
        Ok(Some(made))
    }
}

/// Whether a path is `floor`, which has no slash at its end, or stands below it.
fn is_within(path: &[u8], floor: &[u8]) -> bool {
    path.strip_prefix(floor).is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Template;
    use crate::route::{Pattern, PatternCaches};

    fn rewritten(path: NewPath, asked: &str, matched: usize) -> Result<String, RewriteFault> {
        let rewrite = Rewrite { host: None, path };
        let made = rewrite.path(asked.as_bytes(), matched, &RouteCaptures::default(), false)?;
        Ok(String::from_utf8(made.unwrap_or_else(|| asked.into())).unwrap())
    }

    fn prefix(new: &str) -> NewPath {
        NewPath::Prefix(new.as_bytes().into())
    }

    #[test]
    fn r_08_nothing_leaves_what_the_prefix_was_replaced_by() {
        let strip = |asked: &str| rewritten(prefix("/"), asked, "/api".len());
        assert_eq!(strip("/api/a/b").as_deref(), Ok("/a/b"));
        assert_eq!(strip("/api/a%2Fb").as_deref(), Ok("/a%2Fb"));
        assert_eq!(strip("/api").as_deref(), Ok("/"));
        for asked in ["/api//admin", "/api../admin", "/api/..%2Fadmin", "/api/%252e%252e/admin", "/api/..;/x"]
        {
            assert_eq!(strip(asked), Err(RewriteFault), "{asked}");
        }
        let moved = |asked: &str| rewritten(prefix("/v1/app"), asked, "/api".len());
        assert_eq!(moved("/api/a%2Fb;c").as_deref(), Ok("/v1/app/a%2Fb;c"));
        assert_eq!(moved("/api/a/..%2Fb").as_deref(), Ok("/v1/app/a/..%2Fb"));
        for asked in ["/api/..%2Fadmin", "/api/..%2F..%2Fadmin", "/api/..;/admin", "/api%2F..%2F..%2Fadmin"] {
            assert_eq!(moved(asked), Err(RewriteFault), "{asked}");
        }
        let rewrite = Rewrite { host: None, path: prefix("/v1/app") };
        let asked = b"/api/..%2Fadmin";
        let allowed = rewrite.path(asked, 4, &RouteCaptures::default(), true);
        assert_eq!(allowed, Ok(Some(b"/v1/app/..%2Fadmin".to_vec())));
    }

    #[test]
    fn captured_text_stays_below_what_stands_before_it() {
        let mut caches = PatternCaches::default();
        let pattern = Pattern::new("/u/([^/]*)/?(?<rest>.*)", false).unwrap();
        let mut made = |template: &str, asked: &str| {
            let captures = RouteCaptures::of(&pattern, asked.as_bytes(), &mut caches);
            let rewrite = Rewrite { host: None, path: NewPath::Whole(Template::parse(template).unwrap()) };
            let made = rewrite.path(asked.as_bytes(), 0, &captures, false)?;
            Ok(String::from_utf8(made.unwrap_or_default()).unwrap())
        };
        assert_eq!(made("/users/${capture.1}/${capture.rest}", "/u/me/x/y").as_deref(), Ok("/users/me/x/y"));
        assert_eq!(made("/users/${capture.7}", "/u/me").as_deref(), Ok("/users/"));
        for (template, asked) in [
            ("/users/${capture.rest}", "/u/me/..%2F..%2Fadmin"),
            ("/users/${capture.1}", "/u/..%2Fadmin"),
            ("/${capture.rest}", "/u/me//admin"),
            ("/users/.${capture.1}", "/u/./x"),
        ] {
            assert_eq!(made(template, asked), Err(RewriteFault), "{template} of {asked}");
        }
    }
}
