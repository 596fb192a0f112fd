//! What the machine must offer for the services of a configuration, asked before it is in force.

use lb_config::{Config, ConfigError};
use lb_l4_xdp::has_syn_cookies;

/// The setting of the kernel, of this network namespace.
const SYN_COOKIES: &str = "/proc/sys/net/ipv4/tcp_syncookies";

/// What is wanting.
pub(crate) fn faults_of_machine(config: &Config) -> Vec<ConfigError> {
    if config.syn_cookie_listeners().is_empty() {
        return Vec::new();
    }
    let setting = std::fs::read_to_string(SYN_COOKIES).unwrap_or_default();
    let Some(problem) = problem(has_syn_cookies(), setting.trim()) else { return Vec::new() };
    config.faults(None, &[], "xdp.syn_cookies_above_per_sec_per_cpu", problem)
}

/// With another setting the kernel makes no cookies, or only when its own queue has overflown, and takes none before.
fn problem(has_helpers: bool, setting: &str) -> Option<&'static str> {
    if !has_helpers {
        return Some("needs Linux 6.0 or later, whose programs can make cookies that the kernel takes");
    }
    (setting != "2")
        .then_some("needs net.ipv4.tcp_syncookies = 2: the kernel takes cookies only where it makes them too")
}

#[cfg(test)]
mod tests {
    use super::problem;

    #[test]
    fn cookies_need_a_kernel_that_takes_them() {
        assert_eq!(problem(true, "2"), None);
        assert!(problem(true, "1").is_some() && problem(true, "0").is_some() && problem(true, "").is_some());
        assert!(problem(false, "2").is_some_and(|problem| problem.contains("Linux 6.0")));
    }
}
