//! Values from the environment in strings: `${NAME}`, and `${NAME:-default}` where the variable may be absent.

use std::borrow::Cow;

/// Gives the value of an environment variable, if it is set.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What a string may come to.
const LONGEST: usize = 64 << 10;

/// The string with variables replaced by their values.
///
/// A name is of upper-case letters, digits and `_`, so that the variables of templates, such as `${client_ip}`, stay as they are.
/// As in a shell, the default stands for a variable that is empty, too. `$${NAME}` is the text `${NAME}`.
///
/// # Errors
/// What is wrong with a reference, or which variable is not set.
pub(crate) fn expand<'t>(text: &'t str, lookup: Lookup<'_>) -> Result<Cow<'t, str>, String> {
    let mut out = String::new();
    let mut rest = text;
    let mut is_expanded = false;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        let Some(inner) = reference.strip_prefix("${").filter(|inner| inner.starts_with(begins)) else {
            out.push_str(before);
            out.push_str("${");
            rest = reference.get(2..).unwrap_or_default();
            continue;
        };
        is_expanded = true;
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = inner;
            continue;
        }
        out.push_str(before);
        let name_end = inner.find(|char| !continues(char)).unwrap_or(inner.len());
        let (name, end) = inner.split_at(name_end);
        let found = lookup(name);
        rest = if let Some(end) = end.strip_prefix('}') {
            out.push_str(&found.ok_or_else(|| {
                format!("the environment has no variable {name}; `${{{name}:-default}}` does without one")
            })?);
            end
        } else if let Some((default, end)) = end.strip_prefix(":-").and_then(|end| end.split_once('}')) {
            match &found {
                Some(value) if !value.is_empty() => out.push_str(value),
                _ => out.push_str(default),
            }
            end
        } else {
            return Err(format!(
                "`${{{name}` has to end as `${{{name}}}` or `${{{name}:-default}}`; `$${{` is for the text `${{`"
            ));
        };
        if out.len() > LONGEST {
            return Err(format!("it comes to more than {LONGEST} bytes"));
        }
    }
    if !is_expanded {
        return Ok(Cow::Borrowed(text));
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

fn begins(char: char) -> bool {
    char.is_ascii_uppercase() || char == '_'
}

fn continues(char: char) -> bool {
    begins(char) || char.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::expand;

    fn of(text: &str) -> Result<String, String> {
        let lookup = |name: &str| match name {
            "HOST" => Some("10.0.0.1".to_owned()),
            "EMPTY" => Some(String::new()),
            "LOOKS" => Some("${HOST}".to_owned()),
            "BIG" => Some("x".repeat(60_000)),
            _ => None,
        };
        expand(text, &lookup).map(std::borrow::Cow::into_owned)
    }

    #[test]
    fn values_and_defaults() {
        for (text, wanted) in [
            ("", ""),
            ("no variable, $HOST, {HOST}", "no variable, $HOST, {HOST}"),
            ("${HOST}:80", "10.0.0.1:80"),
            ("${HOST}${EMPTY}${HOST}", "10.0.0.110.0.0.1"),
            ("${NONE:-1.2.3.4}:${PORT_2:-80}", "1.2.3.4:80"),
            ("${HOST:-1.2.3.4}", "10.0.0.1"),
            ("${EMPTY:-something}", "something"),
            ("${NONE:-}", ""),
            // What templates of fields have.
            ("${client_ip} ${header.X-A} ${HOST}", "${client_ip} ${header.X-A} 10.0.0.1"),
            ("$${HOST} is $${client_ip}", "${HOST} is $${client_ip}"),
            // A value is text, whatever it looks like.
            ("${LOOKS}", "${HOST}"),
        ] {
            assert_eq!(of(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wanted) in [
            ("${NONE}", "no variable NONE"),
            ("a ${HOST", "has to end as"),
            ("${HOST:80}", "has to end as"),
            ("${HOST:-80", "has to end as"),
            ("${HOST.x}", "has to end as"),
            ("${BIG}${BIG}", "more than 65536 bytes"),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
