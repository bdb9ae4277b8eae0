//! Resolves `credentials` and access keys to a credentials provider for each mount. Mounts with the
//! same login share one.

mod access_keys;
mod identity;

use std::sync::Arc;

pub(super) use self::access_keys::{AccessKeys, access_key_id, secret_key, session_token};
pub(super) use self::identity::{
    CredentialsMap, Identity, IdentityKind, external_id, profile, role_arn, session_name,
    token_file,
};

use self::access_keys::{AwsKeys, Given, report_both};
use crate::config::diagnostic::{Diagnostic, Fault};
use crate::config::key::Marks;
use crate::config::source::Written;
use crate::s3::credentials::handle::CredentialsHandle;
use crate::s3::credentials::login::{Login, Role};
use crate::upstream::proxy::Proxies;

/// Resolves the logins of mounts, and creates one provider for each distinct login.
pub(super) struct Providers {
    /// The login of mounts without `credentials`; `Ok(None)` is anonymous.
    top_level: Result<Option<Login>, Reported>,
    aws_keys: AwsKeys,
    sts_region: Option<String>,
    proxies: Arc<Proxies>,
    sources: Vec<Arc<CredentialsHandle>>,
}

/// The setting is wrong and has been reported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported;

impl Providers {
    /// `identity` is the top level's `credentials`. `sts_region` is the region of the STS endpoint.
    pub(super) fn new(
        identity: Option<&Identity>,
        marks: &Marks,
        written: &[Written],
        sts_region: Option<String>,
        proxies: Arc<Proxies>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Providers {
        report_both(written, diagnostics);
        let mut aws_keys = AwsKeys::read(written);
        let top_level = top_level(identity, marks, &mut aws_keys, diagnostics);
        Providers { top_level, aws_keys, sts_region, proxies, sources: Vec::new() }
    }

    /// The login of a mount; `own` is its own `credentials`. `None` is anonymous.
    pub(super) fn login(
        &mut self,
        own: Option<Identity>,
        marks: &Marks,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<Option<Login>, Reported> {
        let inherited = self.top_level.clone();
        match own {
            _ if marks.is_wrong("credentials") => Err(Reported),
            None => inherited,
            Some(Identity::Anonymous) => Ok(None),
            Some(Identity::Login(login)) => Ok(Some(login)),
            Some(Identity::Role(role)) => {
                let source = Box::new(inherited?.unwrap_or(Login::Chain));
                Ok(Some(Login::Role(Role { source, ..role })))
            }
            Some(Identity::Auto) => match self.aws_keys.of_environment(diagnostics) {
                Given::Is(keys) => Ok(Some(Login::EnvironmentKeys(keys))),
                Given::Unset => Ok(Some(Login::Chain)),
                Given::Wrong => Err(Reported),
            },
            Some(Identity::Environment) => {
                of_environment(marks, &mut self.aws_keys, diagnostics).map(Some)
            }
        }
    }

    /// The provider of a login; equal logins share one.
    pub(super) fn source(&mut self, login: Login) -> Arc<CredentialsHandle> {
        if let Some(source) = self.sources.iter().find(|source| *source.login() == login) {
            return Arc::clone(source);
        }
        let source = CredentialsHandle::new(login, self.sts_region.clone())
            .with_proxies(Arc::clone(&self.proxies));
        let source = Arc::new(source);
        self.sources.push(Arc::clone(&source));
        source
    }
}

/// The login of mounts without `credentials`. If the top level has none either, it is the default
/// chain of AWS's tools.
///
/// An explicit kind of credentials is meant for this program, so it takes precedence over AWS
/// variables in the environment; access keys in the file do not.
fn top_level(
    identity: Option<&Identity>,
    marks: &Marks,
    aws_keys: &mut AwsKeys,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<Option<Login>, Reported> {
    let keys_in_file = match identity {
        Some(Identity::Anonymous) => return Ok(None),
        Some(Identity::Role(role)) => return Ok(Some(Login::Role(role.clone()))),
        Some(Identity::Login(login)) if login.keys().is_none() => return Ok(Some(login.clone())),
        Some(Identity::Environment) => {
            return of_environment(marks, aws_keys, diagnostics).map(Some);
        }
        Some(Identity::Login(login)) => Some(login.clone()),
        Some(Identity::Auto) | None => None,
    };
    match aws_keys.of_environment(diagnostics) {
        Given::Is(keys) => return Ok(Some(Login::EnvironmentKeys(keys))),
        Given::Wrong => return Err(Reported),
        Given::Unset if marks.is_wrong("credentials") => return Err(Reported),
        Given::Unset => {}
    }
    match (keys_in_file, aws_keys.of_file(diagnostics)) {
        (Some(login), _) => Ok(Some(login)),
        (None, Given::Is(keys)) => Ok(Some(Login::Keys(keys))),
        (None, Given::Unset) => Ok(Some(Login::Chain)),
        (None, Given::Wrong) => Err(Reported),
    }
}

fn of_environment(
    marks: &Marks,
    aws_keys: &mut AwsKeys,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<Login, Reported> {
    match aws_keys.of_environment(diagnostics) {
        Given::Is(keys) => return Ok(Login::EnvironmentKeys(keys)),
        Given::Wrong => {}
        Given::Unset => {
            let help = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY there";
            let fault = Fault::new("the environment has no access keys", help);
            let location = marks.location("credentials");
            diagnostics.extend(location.map(|location| location.diagnostic(fault)));
        }
    }
    Err(Reported)
}

/// The profile that a login names.
pub(super) fn profile_of(login: &Login) -> Option<&str> {
    match login {
        Login::Profile(name) => Some(name),
        // A mount's role may be assumed with another one.
        Login::Role(role) => profile_of(&role.source),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_behind_a_chain_of_roles_says_where_s3_is() {
        let role = |source| {
            let (arn, external_id, session_name) = ("arn:aws:iam::1:role/a".to_owned(), None, None);
            Login::Role(Role { arn, external_id, session_name, source: Box::new(source) })
        };
        let profile = Login::Profile("lab".to_owned());
        assert_eq!(profile_of(&role(role(profile))), Some("lab"));
        assert_eq!(profile_of(&role(role(Login::Chain))), None);
    }
}
