//! The suite: black-box tests of the real program, each of which tells a story.
//!
//! Every story that starts the proxy runs under both event loops, as two tests with names such as
//! `ranges::a_range_past_the_end_is_416_with_the_size::io_uring`. Stand-ins for S3 and other
//! helpers are in `tests/support`.

#[path = "../support/mod.rs"]
mod support;

/// Makes each named story two tests, one per event loop. A story that is missing from the list is
/// dead code, which the compiler reports. An attribute before the list applies to all its tests.
macro_rules! both_drivers {
    (@ $story:ident $(#[$attribute:meta])?) => {
        mod $story {
            #[test]
            $(#[$attribute])?
            fn io_uring() {
                super::$story(crate::support::proxy::Driver::IoUring);
            }

            #[test]
            $(#[$attribute])?
            fn epoll() {
                super::$story(crate::support::proxy::Driver::Epoll);
            }
        }
    };
    (#[$attribute:meta] $($story:ident),+ $(,)?) => {
        $(both_drivers!(@ $story #[$attribute]);)+
    };
    ($($story:ident),+ $(,)?) => {
        $(both_drivers!(@ $story);)+
    };
}

mod aborts;
mod browser;
mod changes;
mod check;
mod clients;
mod clock;
mod conditionals;
mod configuration;
mod connections;
mod content;
mod cors;
mod credentials;
mod demo;
mod denied;
mod encryption;
mod endpoints;
mod faults;
mod fixtures;
mod http;
mod keys;
mod lifecycle;
mod logging;
mod metadata;
mod mounts;
mod names;
mod overload;
mod proxies;
mod quirks;
mod ranges;
mod relay;
mod rewriting;
mod servers;
mod signing;
mod stalls;
mod statuses;
mod tls;
mod versions;
