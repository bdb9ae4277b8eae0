//! Each kind of credentials provider: containers, roles, web identities, profiles, programs, the
//! chain.

use super::*;

both_drivers!(
    a_container_is_given_credentials_for_its_token,
    the_token_file_of_a_pod_may_change,
    a_role_is_assumed_with_its_external_id,
    a_role_that_may_not_be_assumed_is_named_with_the_reason,
    a_web_identity_is_exchanged_for_a_role,
    profiles_hold_keys_and_roles_and_programs,
    a_profile_of_single_sign_on_waits_for_the_login,
    an_edited_profile_is_read_again_when_s3_rejects_its_keys,
    the_chain_finds_every_provider,
    check_says_which_credentials_and_why_there_are_none,
    configured_keys_need_no_credential_service,
);

fn a_container_is_given_credentials_for_its_token(driver: Driver) {
    let world = World::new(driver, HOUR, "container");
    let process = world.in_container();
    let proxy =
        Proxy::start(process.environment("AWS_CONTAINER_AUTHORIZATION_TOKEN", CONTAINER_TOKEN));
    get(&proxy, TARGET).assert(200, "ACGT");
    assert!(warnings(&proxy).is_empty());
    world.assert_no_secret_in(&proxy.stderr());
}

fn the_token_file_of_a_pod_may_change(driver: Driver) {
    let world = World::new(driver, HOUR, "container");
    let mut process = world.in_container();
    // A token with a line break inside cannot be sent, and the error must not show it.
    process.write("token", format!("{CONTAINER_TOKEN}\n"));
    let path = process.path_of("token");
    let process = process.environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &path);
    let proxy = Proxy::start(process);
    let said = the_warning(&proxy, "requests get a 502 response");
    assert!(said.contains("line break"), "{said}");
    std::fs::write(proxy.directory().join("token"), CONTAINER_TOKEN).expect("our own directory");
    eventually("the file is read again", || get(&proxy, TARGET).status == 200);
    world.assert_no_secret_in(&proxy.stderr());
}

fn a_role_is_assumed_with_its_external_id(driver: Driver) {
    let role =
        format!("{{ role_arn: '{ROLE_ARN}', external_id: '{EXTERNAL_ID}', session_name: lab }}");
    let world = World::new(driver, Duration::from_secs(6), &role);
    // The chain finds the instance's credentials, which assume the role.
    let proxy = Proxy::start(world.process());
    get(&proxy, TARGET).assert(200, "ACGT");
    let form = world.services.forms()[0].form.clone();
    assert_eq!(form["Action"], "AssumeRole");
    assert_eq!((form["RoleArn"].as_str(), form["RoleSessionName"].as_str()), (ROLE_ARN, "lab"));
    eventually("the role is assumed again", || {
        get(&proxy, TARGET).assert(200, "ACGT");
        world.access_keys_used().len() >= 2
    });
    world.assert_no_secret_in(&proxy.stderr());
}

fn a_role_that_may_not_be_assumed_is_named_with_the_reason(driver: Driver) {
    let role = format!("{{ role_arn: '{ROLE_ARN}', external_id: another }}");
    let world = World::new(driver, HOUR, &role);
    let proxy = Proxy::start(world.process());
    get(&proxy, TARGET).assert_error(502);
    let said = the_warning(&proxy, "requests get a 502 response");
    for part in [ROLE_ARN, "AccessDenied: not authorized to assume the role", "external_id"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    world.assert_no_secret_in(&proxy.stderr());
}

fn a_web_identity_is_exchanged_for_a_role(driver: Driver) {
    let world = World::new(driver, HOUR, "web_identity");
    let mut process = world.process().environment("AWS_ROLE_ARN", ROLE_ARN);
    process.write("identity", IDENTITY_TOKEN);
    let path = process.path_of("identity");
    let proxy = Proxy::start(process.environment("AWS_WEB_IDENTITY_TOKEN_FILE", &path));
    get(&proxy, TARGET).assert(200, "ACGT");
    assert_eq!(world.services.forms()[0].form["Action"], "AssumeRoleWithWebIdentity");
    world.assert_no_secret_in(&proxy.stderr());

    let named = format!("{{ role_arn: '{ROLE_ARN}', web_identity_token_file: identity }}");
    let world = World::new(driver, HOUR, &named);
    let mut process = world.process();
    process.write("identity", IDENTITY_TOKEN);
    get(&Proxy::start(process), TARGET).assert(200, "ACGT");
    assert_eq!(world.services.forms()[0].form["RoleSessionName"], "s3proxy");
}

/// The shared files of AWS's tools.
fn with_files(world: &World, config: &str, credentials: &str) -> Process {
    let mut process = world.process();
    process.write("aws-config", config);
    process.write("aws-credentials", credentials);
    let (config, credentials) = (process.path_of("aws-config"), process.path_of("aws-credentials"));
    process
        .environment("AWS_CONFIG_FILE", &config)
        .environment("AWS_SHARED_CREDENTIALS_FILE", &credentials)
        // `credential_process` is run by a shell, which needs PATH.
        .environment("PATH", "/usr/bin:/bin")
}

/// Issued credentials as a section of the credentials file.
fn section(name: &str, world: &World) -> String {
    let keys = world.s3.server.keyring().issue(HOUR);
    format!(
        "[{name}]\naws_access_key_id = {}\naws_secret_access_key = {}\naws_session_token = {}\n",
        keys.access_key,
        keys.secret_key,
        keys.token.expect("temporary credentials")
    )
}

fn profiles_hold_keys_and_roles_and_programs(driver: Driver) {
    let world = World::new(driver, HOUR, "{ profile: lab }");
    let keys = Proxy::start(with_files(&world, "", &section("lab", &world)));
    get(&keys, TARGET).assert(200, "ACGT");
    world.assert_no_secret_in(&keys.stderr());

    let role = format!(
        "[profile lab]\nrole_arn = {ROLE_ARN}\nexternal_id = {EXTERNAL_ID}\nsource_profile = base\n"
    );
    let proxy = Proxy::start(with_files(&world, &role, &section("base", &world)));
    get(&proxy, TARGET).assert(200, "ACGT");
    assert_eq!(world.services.forms().len(), 1);
    world.assert_no_secret_in(&proxy.stderr());

    let set = process_json(&world.s3.server.keyring().issue(HOUR));
    let mut process = with_files(&world, "[profile lab]\ncredential_process = cat set.json\n", "");
    process.write("set.json", &set);
    let proxy = Proxy::start(process);
    get(&proxy, TARGET).assert(200, "ACGT");
    world.assert_no_secret_in(&proxy.stderr());

    let failing = "[profile lab]\ncredential_process = sh -c \"cat set.json >&2; exit 3\"\n";
    let mut process = with_files(&world, failing, "");
    process.write("set.json", &set);
    let proxy = Proxy::start(process);
    get(&proxy, TARGET).assert_error(502);
    let said = the_warning(&proxy, "the profile \"lab\"");
    assert!(
        said.contains("exit status: 3") && said.contains("by hand to see its messages"),
        "{said}"
    );
    world.assert_no_secret_in(&proxy.stderr());
}

fn a_profile_of_single_sign_on_waits_for_the_login(driver: Driver) {
    let world = World::new(driver, HOUR, "{ profile: lab }");
    let profile = "[profile lab]\nsso_session = lab\nsso_account_id = 111122223333\n\
                   sso_role_name = reader\n[sso-session lab]\nsso_region = us-east-1\n\
                   sso_start_url = https://lab.example.org/start\n";
    let process = with_files(&world, profile, "");
    let home = process.path_of("home");
    let proxy = Proxy::start(process.environment("HOME", &home));
    get(&proxy, TARGET).assert_error(502);
    let said = the_warning(&proxy, "the profile \"lab\"");
    assert!(said.contains("aws sso login"), "{said}");

    // The token cache of `aws sso login`; its file is named by the SHA-1 of the session's name.
    let cache = proxy.directory().join("home/.aws/sso/cache");
    std::fs::create_dir_all(&cache).expect("our own directory");
    let token = format!(
        "{{\"accessToken\": \"{SSO_TOKEN}\", \"expiresAt\": \"2099-01-01T00:00:00Z\", \
         \"region\": \"us-east-1\", \"startUrl\": \"https://lab.example.org/start\"}}"
    );
    std::fs::write(cache.join("3953f9ddf975ab5097ee468d99555c5b441169bf.json"), token)
        .expect("our own directory");
    eventually("the login is found", || get(&proxy, TARGET).status == 200);
    world.assert_no_secret_in(&proxy.stderr());
}

fn an_edited_profile_is_read_again_when_s3_rejects_its_keys(driver: Driver) {
    let world = World::new(driver, HOUR, "{ profile: lab }");
    let proxy = Proxy::start(with_files(&world, "", &section("lab", &world)));
    get(&proxy, TARGET).assert(200, "ACGT");
    world.s3.server.keyring().revoke_all();
    let file = proxy.directory().join("aws-credentials");
    std::fs::write(file, section("lab", &world)).expect("our own directory");
    eventually("the file is read again", || get(&proxy, TARGET).status == 200);
    world.assert_no_secret_in(&proxy.stderr());
}

fn the_chain_finds_every_provider(driver: Driver) {
    // No credentials are configured, as in most configurations on EC2 and EKS.
    let mut world = World::new(driver, HOUR, "auto");
    world.config = world.config.without("credentials");
    get(&Proxy::start(world.process()), TARGET).assert(200, "ACGT");
    let files = with_files(&world, "", &section("default", &world));
    get(&Proxy::start(files), TARGET).assert(200, "ACGT");
    let token = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
    get(&Proxy::start(world.in_container().environment(token, CONTAINER_TOKEN)), TARGET)
        .assert(200, "ACGT");
    assert_eq!(world.access_keys_used().len(), 3);

    let nothing = world.process().environment("AWS_EC2_METADATA_DISABLED", "true");
    let proxy = Proxy::start(nothing);
    get(&proxy, TARGET).assert_error(502);
    let said = the_warning(&proxy, "requests get a 502 response");
    assert!(said.contains("the AWS credential chain") && said.contains("anonymous"), "{said}");
}

fn check_says_which_credentials_and_why_there_are_none(driver: Driver) {
    let world = World::new(driver, HOUR, "instance");
    let good = world.process().argument("--check").run();
    assert_eq!(good.code, 0, "{good:?}");
    assert!(
        good.stdout.contains(", credentials of the instance metadata service: ok: "),
        "{good:?}"
    );
    world.services.set(Mode::Responding(404, "no".to_owned()));
    let bad = world.process().argument("--check").run();
    assert_eq!(bad.code, 1, "{bad:?}");
    assert!(bad.stdout.contains("FAILED: there are no credentials: "), "{bad:?}");
    assert!(
        bad.stdout.contains("it responded 404;") && bad.stdout.contains("has a role"),
        "{bad:?}"
    );
    for finished in [good, bad] {
        world.assert_no_secret_in(&format!("{}{}", finished.stdout, finished.stderr));
    }
}

fn configured_keys_need_no_credential_service(driver: Driver) {
    let mut world = World::new(driver, HOUR, "auto");
    let written = Config::over(driver, &world.s3);
    world.config = written.clone();
    let proxy = Proxy::start(world.in_container());
    get(&proxy, TARGET).assert(200, "ACGT");
    world.config = written.without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY");
    let of_environment = world
        .in_container()
        .environment("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .environment("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    get(&Proxy::start(of_environment), TARGET).assert(200, "ACGT");
    assert_eq!(world.services.request_count(), 0);
}
