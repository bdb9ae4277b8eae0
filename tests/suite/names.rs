//! S3's name and its addresses, as a name server gives them and takes them away.
//!
//! The proxy gets a `/etc/resolv.conf` of its own, and the name server the port that it must have.
//! Both need root, so these tests are ignored unless they are asked for, as `tests/run` does.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::support::eventually;
use crate::support::name_server::{NAME, NameServer};
use crate::support::proxy::{Config, Driver, Process, Proxy};
use crate::support::raw_http::get;
use crate::support::scripted_upstream::{ScriptedUpstream, ok};

both_drivers!(
    #[ignore = "needs root"]
    a_name_is_looked_up_again_when_its_record_expires_and_not_before,
    addresses_that_fail_are_passed_over_and_the_name_is_looked_up_again,
);

const TARGET: &str = "/files/reads.bam";
const HOUR: u32 = 3600;

/// A network of the loopback device for each test, since they run at the same time.
fn network(story: u8, driver: Driver) -> impl Fn(u8) -> Ipv4Addr {
    let network = 2 * story + u8::from(driver == Driver::Epoll);
    move |host| Ipv4Addr::new(127, 53, network, host)
}

/// The proxy over [`NAME`], with a new connection for each request.
fn proxy(driver: Driver, port: u16, name_server: &NameServer) -> Proxy {
    let config = Config::new(driver, &format!("http://{NAME}:{port}"))
        .set("upstream_max_idle_connections", "0");
    let mut process = Process::with_config(&config.yaml());
    process.write("resolv.conf", name_server.resolv_conf());
    Proxy::start(process.with_resolv_conf("resolv.conf"))
}

fn a_name_is_looked_up_again_when_its_record_expires_and_not_before(driver: Driver) {
    let at = network(1, driver);
    let old = ScriptedUpstream::always_at((at(1), 0), ok("old"));
    let new = ScriptedUpstream::always_at((at(2), old.port()), ok("new"));
    let name_server = NameServer::start(at(53), &[at(1)], 1);
    let proxy = proxy(driver, old.port(), &name_server);
    get(&proxy, TARGET).assert(200, "old");
    name_server.set(&[at(2)], HOUR);
    eventually("the new address is found", || get(&proxy, TARGET).body == b"new");
    let (asked, connections) = (name_server.questions(), old.connections());
    std::thread::sleep(Duration::from_millis(2500));
    get(&proxy, TARGET).assert(200, "new");
    assert_eq!((name_server.questions(), old.connections()), (asked, connections));
    assert!(new.connections() >= 2);
}

fn addresses_that_fail_are_passed_over_and_the_name_is_looked_up_again(driver: Driver) {
    let at = network(2, driver);
    let first = ScriptedUpstream::always_at((at(2), 0), ok("first"));
    let port = first.port();
    // Nobody listens at the other two.
    let name_server = NameServer::start(at(53), &[at(1), at(2), at(3)], HOUR);
    let proxy = proxy(driver, port, &name_server);
    for _ in 0..10 {
        get(&proxy, TARGET).assert(200, "first");
    }
    assert_eq!(first.connections(), 10);
    drop(first);
    let _second = ScriptedUpstream::always_at((at(4), port), ok("second"));
    name_server.set(&[at(4)], HOUR);
    eventually("the name is looked up before its hour is over", || {
        get(&proxy, TARGET).body == b"second"
    });
}
