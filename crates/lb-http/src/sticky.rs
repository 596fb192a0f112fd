//! Sticky sessions: a cookie that brings a client back to the member that served it.
//!
//! Nothing is kept of clients. What each member's cookie says is made once, when the settings are; a request's cookie is looked up among
//! those, so that one that was not made with the key means nothing.

use std::collections::HashMap;

use lb_config::SameSite;
use lb_core::head::RequestHead;
use lb_security::StickyKey;

use crate::affinity;

/// The cookies of a pool.
#[derive(Debug)]
pub(crate) struct Sticky {
    name: Vec<u8>,
    /// The member that a cookie stands for.
    members: HashMap<Vec<u8>, usize>,
    /// `Set-Cookie` for each member.
    lines: Vec<Vec<u8>>,
}

impl Sticky {
    /// The cookies of a pool whose members have these identities.
    pub(crate) fn new(
        settings: &lb_config::Sticky,
        key: &StickyKey,
        pool: &str,
        identities: impl Iterator<Item = u64>,
    ) -> Self {
        let values: Vec<String> = identities.map(|identity| key.cookie(pool, identity)).collect();
        Self {
            name: settings.cookie.clone().into_bytes(),
            lines: values.iter().map(|value| line(settings, value).into_bytes()).collect(),
            members: values.into_iter().map(String::into_bytes).zip(0..).collect(),
        }
    }

    /// The member that served the client before.
    pub(crate) fn member(&self, request: &RequestHead) -> Option<usize> {
        self.members.get(affinity::cookie(request, &self.name)?).copied()
    }

    /// The value of the `Set-Cookie` that stands for a member.
    pub(crate) fn line(&self, at: usize) -> Option<&[u8]> {
        self.lines.get(at).map(Vec::as_slice)
    }
}

fn line(settings: &lb_config::Sticky, value: &str) -> String {
    let mut line = format!("{}={value}; Path={}", settings.cookie, settings.path);
    if let Some(ttl) = settings.ttl {
        line.push_str(&format!("; Max-Age={}", ttl.as_secs()));
    }
    line.push_str(match settings.same_site {
        SameSite::Lax => "; SameSite=Lax",
        SameSite::Strict => "; SameSite=Strict",
        SameSite::None => "; SameSite=None",
    });
    if settings.secure {
        line.push_str("; Secure");
    }
    if settings.http_only {
        line.push_str("; HttpOnly");
    }
    line
}
