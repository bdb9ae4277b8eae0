//! As whom a bucket is asked: the top level's say, and which of its sources counts.

use crate::config::file::Setting;
use crate::config::keys::key_set;
use crate::config::login;
use crate::config::problem::{Fault, Place, Problem};
use crate::config::reader::Reader;
use crate::s3::credentials::Credentials;
use crate::s3::credentials::login::{Login, Role};

/// As whom a bucket is asked.
#[derive(Clone)]
pub(super) enum Identity {
    /// Unsigned.
    Anonymous,
    /// Signed with what this login gives.
    Login(Login),
    /// As a role, which is assumed with the credentials of the level above.
    Role(Role),
}

/// Something that may have been set, and may have been set wrongly, in which case it has been
/// reported and is not missing.
#[derive(Clone)]
pub(super) enum Given<T> {
    Unset,
    Wrong,
    Is(T),
}

const AWS_KEYS: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// The variables and the keys of the file that are named as in AWS's tools.
///
/// Keys come from one source as a set: a session token of one with the keys of another would be
/// refused by S3 in words that help nobody.
pub(super) struct AwsKeys {
    environment: Given<Credentials>,
    /// Mistakes in the environment, which count only where it is used.
    mistakes: Vec<Problem>,
    file: Reader,
    first_in_file: Option<&'static str>,
}

impl AwsKeys {
    pub(super) fn take(reader: &mut Reader) -> AwsKeys {
        let (environment, file): (Vec<Setting>, Vec<Setting>) = AWS_KEYS
            .iter()
            .flat_map(|&key| reader.take(key))
            .partition(|setting| setting.spot.place == Place::Environment);
        let first_in_file = file.first().map(|setting| setting.key);
        let mut mistakes = Vec::new();
        let environment = key_set(&mut Reader::new(environment), AWS_KEYS, &mut mistakes);
        AwsKeys { environment, mistakes, file: Reader::new(file), first_in_file }
    }

    /// The keys of the environment; their mistakes are reported once.
    pub(super) fn of_environment(&mut self, problems: &mut Vec<Problem>) -> Given<Credentials> {
        problems.append(&mut self.mistakes);
        self.environment.clone()
    }
}

/// The identity of every mount without its own.
///
/// A kind of credentials that is named is meant for this program, so it wins over AWS variables
/// that happen to be set; keys that are written down do not.
pub(super) fn top_level(reader: &mut Reader, keys: &mut AwsKeys) -> Given<Identity> {
    let mut given = Given::Unset;
    for setting in reader.take("credentials") {
        if let (Place::File { .. }, Some(beside)) = (&setting.spot.place, keys.first_in_file) {
            let what = format!("stands beside {beside}");
            reader.report(&setting.spot, Fault::new(what, "keep one of the two"));
        }
        given = login::identity(setting, keys, &mut reader.problems);
    }
    let yields = match &given {
        Given::Unset | Given::Wrong => true,
        Given::Is(Identity::Login(login)) => login.keys().is_some() || *login == Login::Chain,
        Given::Is(Identity::Anonymous | Identity::Role(_)) => false,
    };
    if !yields {
        return given;
    }
    let login = match keys.of_environment(&mut reader.problems) {
        Given::Unset => match key_set(&mut keys.file, AWS_KEYS, &mut reader.problems) {
            Given::Is(keys) => Given::Is(Login::Keys(keys)),
            Given::Wrong => Given::Wrong,
            Given::Unset => Given::Unset,
        },
        Given::Is(keys) => Given::Is(Login::EnvironmentKeys(keys)),
        Given::Wrong => Given::Wrong,
    };
    match (login, given) {
        (Given::Is(login), _) => Given::Is(Identity::Login(login)),
        (Given::Wrong, _) => Given::Wrong,
        // As AWS's tools do where nothing is said.
        (Given::Unset, Given::Unset) => Given::Is(Identity::Login(Login::Chain)),
        (Given::Unset, given) => given,
    }
}
