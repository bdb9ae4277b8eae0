//! Malformed files must neither crash the program nor leak a secret.

use super::*;

#[test]
fn secrets_never_occur_in_diagnostics() {
    let hush = "hush-hush-hush";
    let wrong = [
        format!("AWS_SECRET_ACCESS_KEY: [{hush}]"),
        format!("AWS_SECRET_ACCESS_KEY: {{{hush}: {hush}}}"),
        format!("AWS_SECRET_ACCESS_KEY: \"{hush}\\n\""),
        format!("AWS_SECRET_ACCESS_KEY: '{hush} '"),
        format!("AWS_SECRET_ACCESS_KEY: !x {hush}"),
        format!("AWS_SECRET_ACCESS_KEY: {hush}\nAWS_SECRET_ACCESS_KEY: {hush}"),
        format!("AWS_SECRET_ACCESS_KEY={hush}"),
        format!("AWS_SECRET_ACCESS_KEY={hush}: x"),
        format!("AWS_SECRET_ACCESS_KEY: {hush}: x"),
        format!("AWS_SECRET_ACCESS_KEY: *{hush}"),
        format!("AWS_SECRET_ACCESS_KEY: '{hush}"),
        format!("AWS_SECRET_ACCESS_KEY:\n  {hush}\n   - x"),
        format!("AWS_SESSION_TOKEN: '{hush} x'"),
        format!("AWS_SESSION_TOKEN: {hush}"),
        format!("AWS_ACCESS_KEY_ID: {hush}/"),
        format!("credentials: {hush}"),
        format!("credentials: [{hush}]"),
        format!("credentials: {{secret_access_key: {hush}}}"),
        format!("credentials: {{secret_access_key: [{hush}], access_key_id: {hush}}}"),
        format!("endpoint: http://user:{hush}@minio"),
        format!("endpoint: user:{hush}@minio"),
        format!("mounts: {{/a/: {{bucket: lab, credentials: {{session_token: {hush}}}}}}}"),
        format!("mounts: {{/a/: {{bucket: lab, credentials: {hush}}}}}"),
        format!("sse_customer_key_file: {hush}"),
        format!("sse_customer_key_file: [{hush}]"),
        format!("sse_customer_key_file: '{hush}\0'"),
        format!("mounts: {{/a/: {{bucket: lab, sse_customer_key_file: {hush}}}}}"),
    ];
    for text in wrong {
        let said = says(&text);
        assert!(!said.contains(hush), "{text}: {said}");
        let variables = [("AWS_SECRET_ACCESS_KEY", "hush-hush-hush\n x")];
        let said = with(&text, &variables, &Overrides::default()).unwrap_err();
        assert!(!said.contains(hush), "{text}: {said}");
    }
    let debug =
        format!("{:?}", with(OF_2014, &[("AWS_ENDPOINT_URL", "http://m")], &Overrides::default()));
    assert!(debug.contains("AKIAEXAMPLE") && !debug.contains("hush"), "{debug}");
}

#[test]
fn a_possible_secret_in_the_place_of_a_key_is_not_shown() {
    let hush = "hushhushhush1234";
    for text in [
        format!("{hush}: x"),
        format!("{hush}: x\n{hush}: y"),
        format!("mounts: {{{hush}: {{bucket: lab}}}}"),
        format!("mounts: {{/{hush}: {{bucket: lab}}}}"),
        format!("mounts: {{/{hush}/x: {{bucket: lab}}}}"),
        format!("mounts: {{/a/: {{bucket: lab, {hush}: x}}}}"),
        format!("credentials: {{{hush}: x}}"),
        format!("rewrite_rules: {{{hush}: x}}"),
        format!("rewrite_rules: {{{hush}: {{from: '(', to: x}}}}"),
        format!("rewrite_rules: {{a: {{from: a, to: x, {hush}: y}}}}"),
    ] {
        let said = says(&format!("bucket_name: lab\n{text}"));
        assert!(!said.contains(hush), "{text}: {said}");
    }
}

#[test]
fn a_file_that_is_not_a_map_or_not_yaml_is_described_in_one_line() {
    for (text, said) in [
        ("just words", "config.yaml:1: has no 'key: value' lines; see config.example.yaml"),
        ("- a\n- b\n", "config.yaml:1: has no 'key: value' lines; see config.example.yaml"),
    ] {
        assert_eq!(says(text), said);
    }
    let said = says("bucket_name: lab\nlisten: [::1]:5000\n");
    assert!(said.starts_with("config.yaml:2: is not YAML: "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// Pseudo-random sequences of YAML syntax, the same in every run.
#[test]
fn no_text_makes_the_parser_panic() {
    #[rustfmt::skip]
    let pieces = [
        "a", "listen", "mounts", "/files/", "bucket", "credentials", "cors", ": ", ":", "\n",
        "\n  ", " ", "- ", "? ", "[", "]", "{", "}", ",", "&x ", "*x", "!t ", "!!int ", "'",
        "\"", "\\", "|\n", ">\n", "#", "---\n", "...\n", "%YAML 1.2\n", "\t", "é", "\u{feff}",
        "\0", "\r\n", "~", "0123", "rewrite_rules", "from", "to", "(", "$", "http://", "300",
        "\u{1f9ec}", "@", "`", "<<",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |bound: usize| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound as u64).unwrap()
    };
    for _ in 0..20_000 {
        let length = next(24);
        let text: String = (0..length).map(|_| pieces[next(pieces.len())]).collect();
        let cut = next(text.len() + 1);
        let _ = with(&text, &[], &Overrides::default());
        if text.is_char_boundary(cut) {
            let _ = with(&short_and(&text[cut..]), &[], &Overrides::default());
        }
    }
}
