//! Sources of credentials and their precedence.

use std::sync::Arc;

use super::*;
use crate::policy::route;
use crate::s3::credentials;
use crate::s3::credentials::login::{Login, Role};

#[test]
fn credentials_come_from_one_source_as_a_set() {
    let text = format!("{OF_2014}AWS_SESSION_TOKEN: of-the-file\nendpoint: http://minio\n");
    let own = [("AWS_ACCESS_KEY_ID", "ENV"), ("AWS_SECRET_ACCESS_KEY", "env")];
    let config = with(&text, &own, &Overrides::default()).unwrap();
    let credentials = keys(&config.live.mounts[0]);
    assert_eq!(credentials.access_key_id(), "ENV");
    assert_eq!(credentials.secret_access_key(), "env");
    assert_eq!(credentials.session_token(), None);

    let said = with(&text, &own[..1], &Overrides::default()).unwrap_err();
    assert_eq!(
        said,
        "environment: AWS_ACCESS_KEY_ID: is set without AWS_SECRET_ACCESS_KEY; set all of them or none"
    );
    let said = says("bucket_name: lab\nendpoint: http://minio\nAWS_SECRET_ACCESS_KEY: x\n");
    assert!(
        said.starts_with("config.yaml:3: AWS_SECRET_ACCESS_KEY: is set without AWS_ACCESS_KEY_ID")
    );
    let token = with(OF_2014, &[("AWS_SESSION_TOKEN", "x")], &Overrides::default()).unwrap_err();
    assert!(
        token.contains("is set without AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        "{token}"
    );
}

#[test]
fn anonymous_takes_precedence_over_keys_in_the_environment() {
    let keys = [("AWS_ACCESS_KEY_ID", "ENV"), ("AWS_SECRET_ACCESS_KEY", "env")];
    let config = with(SHORT, &keys, &Overrides::default()).unwrap();
    assert!(config.live.mounts[0].bucket.credentials.is_none());
    let both = says(&short_and("AWS_ACCESS_KEY_ID: a\nAWS_SECRET_ACCESS_KEY: b"));
    assert!(both.contains("credentials: conflicts with AWS_ACCESS_KEY_ID; keep one"), "{both}");
}

/// The logins of a mount without settings of its own and of one with `own`.
fn logins(top: &str, own: &str, variables: &[(&str, &str)]) -> [Option<Login>; 2] {
    let text = format!(
        "endpoint: http://minio\n{top}\nmounts:\n  /long/: {{bucket: lab, {own}}}\n  /a/: {{bucket: lab}}\n"
    );
    let config = with(&text, variables, &Overrides::default()).unwrap();
    let login = |mount: &route::Mount| Some(mount.bucket.credentials.as_ref()?.login().clone());
    [login(&config.live.mounts[1]), login(&config.live.mounts[0])]
}

fn written(id: &str) -> Login {
    Login::Keys(credentials::fixed(id, "s", None))
}

fn of_environment() -> Login {
    let keys = written("ENV");
    Login::EnvironmentKeys(keys.keys().unwrap().clone())
}

const ARN: &str = "arn:aws:iam::111122223333:role/reader";

const ENVIRONMENT: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "ENV"), ("AWS_SECRET_ACCESS_KEY", "s")];

#[test]
fn the_aws_chain_is_the_default() {
    assert_eq!(logins("", "", &[]), [Some(Login::Chain), Some(Login::Chain)]);
    // Wrong credentials are not missing credentials.
    let said = says("bucket_name: lab\nendpoint: ftp://s3\ncredentials: 7\n");
    assert_eq!(said.lines().count(), 2, "{said}");
    let keys = logins("", "", &ENVIRONMENT);
    assert_eq!(keys, [Some(of_environment()), Some(of_environment())]);
}

#[test]
fn each_kind_of_credentials_has_its_word() {
    for (word, login) in [
        ("auto", Login::Chain),
        ("web_identity", Login::WebIdentity),
        ("container", Login::Container),
        ("instance", Login::Instance),
        ("{profile: lab}", Login::Profile("lab".to_owned())),
    ] {
        let [top, own] = logins("", &format!("credentials: {word}"), &[]);
        assert_eq!((top, own), (Some(Login::Chain), Some(login.clone())), "{word}");
        let [top, own] = logins(&format!("credentials: {word}"), "", &[]);
        assert_eq!((top, own), (Some(login.clone()), Some(login)), "{word}");
    }
    assert_eq!(logins("", "credentials: anonymous", &[]), [Some(Login::Chain), None]);
}

#[test]
fn an_explicit_kind_takes_precedence_over_keys_in_the_environment() {
    assert_eq!(logins("credentials: instance", "", &ENVIRONMENT)[0], Some(Login::Instance));
    let file = "credentials: {access_key_id: FILE, secret_access_key: s}";
    assert_eq!(logins(file, "", &ENVIRONMENT)[0], Some(of_environment()));
    assert_eq!(logins(file, "", &[])[0], Some(written("FILE")));
    let [top, own] = logins("credentials: instance", "credentials: environment", &ENVIRONMENT);
    assert_eq!((top, own), (Some(Login::Instance), Some(of_environment())));
}

#[test]
fn a_role_is_assumed_with_credentials_of_its_map_or_of_the_level_above() {
    let role = |source: Login| {
        Some(Login::Role(Role {
            arn: ARN.to_owned(),
            external_id: Some("x-1".to_owned()),
            session_name: None,
            source: Box::new(source),
        }))
    };
    let own =
        |beside: &str| format!("credentials: {{role_arn: '{ARN}', external_id: x-1{beside}}}");
    assert_eq!(logins("", &own(""), &[])[1], role(Login::Chain));
    assert_eq!(logins("credentials: instance", &own(""), &[])[1], role(Login::Instance));
    assert_eq!(logins("credentials: anonymous", &own(""), &[])[1], role(Login::Chain));
    assert_eq!(logins("", &own(""), &ENVIRONMENT)[1], role(of_environment()));
    let profile = role(Login::Profile("lab".to_owned()));
    assert_eq!(logins("credentials: instance", &own(", profile: lab"), &[])[1], profile);
    let keys = own(", access_key_id: K, secret_access_key: s");
    assert_eq!(logins("credentials: instance", &keys, &[])[1], role(written("K")));
    assert_eq!(logins(&own(""), "", &ENVIRONMENT)[0], role(Login::Chain));
}

#[test]
fn a_token_file_is_exchanged_for_a_role() {
    let own = format!("credentials: {{role_arn: '{ARN}', web_identity_token_file: /run/token}}");
    let expected = Login::TokenFile {
        path: "/run/token".to_owned(),
        role_arn: ARN.to_owned(),
        session_name: None,
    };
    assert_eq!(logins("", &own, &[])[1], Some(expected));
}

#[test]
fn equal_logins_share_one_provider() {
    let config = config(
        "endpoint: http://minio\ncredentials: instance\nmounts:\n  /a/: {bucket: lab}\n  \
         /b/: {bucket: lab, credentials: instance}\n  /c/: {bucket: lab, credentials: container}\n",
    );
    let source = |index: usize| config.live.mounts[index].bucket.credentials.clone().unwrap();
    assert!(Arc::ptr_eq(&source(0), &source(1)));
    assert!(!Arc::ptr_eq(&source(0), &source(2)));
}

#[test]
fn mistakes_in_credentials_are_reported_without_values() {
    for (value, what) in [
        ("hush", "credentials: is not a kind of credentials; write anonymous, auto, "),
        ("[hush]", "credentials: is a list; write anonymous"),
        ("{session_token: hush}", "is set without access_key_id and secret_access_key"),
        ("{profiel: hush}", "credentials.profiel: unknown key; did you mean 'profile'?"),
        ("{profile: '[hush]'}", "credentials.profile: is not the name of a profile; write it as"),
        ("{role_arn: hush}", "credentials.role_arn: is not the ARN of a role; write it as arn:"),
        ("{external_id: hush}", "external_id: needs role_arn"),
        ("{web_identity_token_file: /hush}", "needs role_arn; add role_arn"),
        (
            "{profile: hush, access_key_id: hush, secret_access_key: hush}",
            "profile: conflicts with access_key_id; keep one",
        ),
        (
            "{role_arn: 'arn:aws:iam::1:role/hush', external_id: 'h ush'}",
            "is not an external id; write 2 to 1224 letters",
        ),
        (
            "{role_arn: 'arn:aws:iam::1:role/hush', session_name: h}",
            "is not a session name; write 2 to 64",
        ),
        (
            "{role_arn: 'arn:aws:iam::1:role/hush', web_identity_token_file: /h, profile: x}",
            "conflicts with profile",
        ),
        (
            "environment",
            "credentials: the environment has no access keys; set AWS_ACCESS_KEY_ID and",
        ),
    ] {
        let said =
            says(&format!("bucket_name: lab\nendpoint: http://minio\ncredentials: {value}\n"));
        assert!(said.contains(what), "{value}: {said}");
        assert!(said.starts_with("config.yaml:3: ") && !said.contains("hush"), "{value}: {said}");
        assert_eq!(said.lines().count(), 1, "{value}: {said}");
    }
}
