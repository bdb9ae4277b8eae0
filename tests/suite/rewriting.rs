//! `rewrite_rules` with `when: missing`: other keys for one that does not exist.

use crate::support::memory_store::{BUCKET, TestS3};
use crate::support::object::Object;
use crate::support::proxy::{Config, Driver, Process};
use crate::support::raw_http::{get, get_range, head, request};

both_drivers!(
    a_rule_for_missing_keys_leaves_existing_ones_alone,
    a_rule_for_missing_keys_serves_the_other_name_in_every_way,
    rules_for_missing_keys_are_tried_in_order_until_one_names_an_object,
    a_key_that_no_rule_helps_is_missing,
    an_unconditional_rule_stays_unconditional,
    rules_see_the_key_before_the_prefix,
    a_key_that_appears_is_served_again,
    an_unknown_condition_is_refused,
);

const RULE: &str = "{bai: {from: '\\.bam\\.bai$', to: .bai, when: missing}}";
const TARGET: &str = "/files/a.bam.bai";

fn a_rule_for_missing_keys_leaves_existing_ones_alone(driver: Driver) {
    let s3 = TestS3::with("a.bam.bai", "given");
    s3.put("a.bai", "other");
    let proxy = Config::over(driver, &s3).set("rewrite_rules", RULE).start();
    get(&proxy, TARGET).assert(200, "given");
    assert_eq!(head(&proxy, TARGET).content_length(), 5);
    get(&proxy, "/files/a.bai").assert(200, "other");
    assert_eq!(s3.server.requests().len(), 2, "no request more than without the rule");
}

fn a_rule_for_missing_keys_serves_the_other_name_in_every_way(driver: Driver) {
    for cold in ["GET", "HEAD"] {
        let object = Object::new("0123456789");
        let tag = object.quoted_e_tag();
        let s3 = TestS3::with("a.bai", object);
        let proxy = Config::over(driver, &s3).set("rewrite_rules", RULE).start();
        assert_eq!(request(&proxy, cold, TARGET, &[]).content_length(), 10);
        for _ in 0..2 {
            get(&proxy, TARGET).assert(200, "0123456789");
            assert_eq!(head(&proxy, TARGET).content_length(), 10);
            get_range(&proxy, TARGET, "bytes=3-4").assert(206, "34");
            get_range(&proxy, TARGET, "bytes=10-").assert_error(416);
            request(&proxy, "GET", TARGET, &[("If-None-Match", &tag)]).assert(304, "");
            request(&proxy, "HEAD", TARGET, &[("If-None-Match", "*")]).assert(304, "");
            request(&proxy, "GET", TARGET, &[("If-Match", "\"x\"")]).assert_error(412);
        }
        assert_eq!(s3.count("HEAD", "a.bam.bai") + s3.count("GET", "a.bam.bai"), 1, "cached");
    }
}

fn rules_for_missing_keys_are_tried_in_order_until_one_names_an_object(driver: Driver) {
    let s3 = TestS3::with("a.csi", "csi");
    let rules = "{one: {from: '\\.bam\\.bai$', to: .bai, when: missing}, \
        two: {from: '^nothing', to: x, when: missing}, \
        three: {from: '\\.bam\\.bai$', to: .csi, when: missing}, \
        four: {from: '\\.bam\\.bai$', to: .never, when: missing}}";
    let proxy = Config::over(driver, &s3).set("rewrite_rules", rules).start();
    get(&proxy, TARGET).assert(200, "csi");
    assert_eq!(head(&proxy, TARGET).content_length(), 3);
    let asked: Vec<_> = s3.server.requests().into_iter().map(|seen| seen.target).collect();
    let key = |name: &str| format!("/{BUCKET}/{name}");
    assert_eq!(asked, [key("a.bam.bai"), key("a.bai"), key("a.csi")]);
}

fn a_key_that_no_rule_helps_is_missing(driver: Driver) {
    let s3 = TestS3::start();
    let rules = "{bai: {from: '\\.bam\\.bai$', to: .bai, when: missing}, \
        long: {from: 'l', to: '${0}', when: missing}, \
        empty: {from: '.*', to: '', when: missing}}";
    let proxy = Config::over(driver, &s3).set("rewrite_rules", rules).start();
    for target in [TARGET, "/files/a.bam", "/files/lll"] {
        for _ in 0..2 {
            get(&proxy, target).assert_error(404);
            assert_eq!(head(&proxy, target).status, 404);
        }
    }
}

fn an_unconditional_rule_stays_unconditional(driver: Driver) {
    let s3 = TestS3::with("a.bam.bai", "given");
    s3.put("a.bai", "other");
    for rule in [
        "{bai: {from: '\\.bam\\.bai$', to: .bai}}",
        "{bai: {from: '\\.bam\\.bai$', to: .bai, when: always}}",
    ] {
        let proxy = Config::over(driver, &s3).set("rewrite_rules", rule).start();
        get(&proxy, TARGET).assert(200, "other");
    }
}

fn rules_see_the_key_before_the_prefix(driver: Driver) {
    let s3 = TestS3::with("runs/a.bai", "prefixed");
    let mounts = format!("{{/files/: {{bucket: {BUCKET}, prefix: runs/}}}}");
    let rule = "{bai: {from: '^(\\w+)\\.bam\\.bai$', to: '\\1.bai', when: missing}}";
    let proxy = Config::over(driver, &s3)
        .without("bucket_name")
        .set("mounts", &mounts)
        .set("rewrite_rules", rule)
        .start();
    get(&proxy, TARGET).assert(200, "prefixed");
}

fn a_key_that_appears_is_served_again(driver: Driver) {
    let s3 = TestS3::with("a.bai", "other");
    let proxy = Config::over(driver, &s3)
        .set("rewrite_rules", RULE)
        .set("metadata_negative_ttl", "0s")
        .start();
    get(&proxy, TARGET).assert(200, "other");
    s3.put("a.bam.bai", "given");
    get(&proxy, TARGET).assert(200, "given");
    s3.delete("a.bam.bai");
    get(&proxy, TARGET).assert(200, "other");
}

fn an_unknown_condition_is_refused(driver: Driver) {
    let s3 = TestS3::start();
    let rule = |when: &str| format!("{{bai: {{from: a, to: b, when: {when}}}}}");
    let many: String =
        (0..17).map(|n| format!("r{n}: {{from: a, to: b, when: missing}}, ")).collect();
    for (rules, words) in [
        (rule("never"), "rewrite_rules.bai.when: 'never' is not a choice"),
        (rule("Missing"), "write one of always, missing"),
        (rule("[missing]"), "rewrite_rules.bai.when: is a list"),
        (format!("{{{many}}}"), "has 17 rules with 'when: missing'; keep 16 at most"),
    ] {
        let yaml = Config::over(driver, &s3).set("rewrite_rules", &rules).yaml();
        let finished = Process::with_config(&yaml).run();
        assert_eq!(finished.code, 78, "{rules}");
        assert!(finished.stderr.contains(words), "{}", finished.stderr);
    }
}
