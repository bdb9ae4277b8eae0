//! The `region`, `endpoint_url` and `services` of profiles in the shared files of AWS's tools
//! (`~/.aws/config`, `~/.aws/credentials`; AWS SDKs and Tools Reference Guide, "Service-specific
//! endpoints"). Their credentials are read by the credentials providers, at each refresh.

use std::collections::HashMap;

use aws_runtime::env_config::file::EnvConfigFiles;
use aws_runtime::env_config::property::PropertiesKey;
use aws_runtime::env_config::section::EnvConfigSections;
use aws_runtime::env_config::source;
use aws_types::os_shim_internal::{Env, Fs};

use crate::config::diagnostic::Fault;
use crate::config::source::environment::{Environment, ignores_configured_endpoints};

#[derive(Default)]
pub(super) struct Profiles {
    sections: EnvConfigSections,
    ignore_endpoints: bool,
    /// The error if the files are malformed.
    broken: Option<String>,
}

/// The region and the endpoint in one profile.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct S3Profile {
    pub(super) name: String,
    pub(super) region: Option<String>,
    pub(super) endpoint_url: Option<String>,
}

impl Profiles {
    /// Reads the files that `environment` names or implies. Files that do not exist are empty; a
    /// malformed one is a mistake only if a profile is needed.
    pub(super) fn load(environment: &Environment) -> Profiles {
        let ignore_endpoints = ignores_configured_endpoints(environment);
        match sections(environment) {
            Ok(sections) => Profiles { sections, ignore_endpoints, broken: None },
            Err(problem) => Profiles { broken: Some(problem), ..Profiles::default() },
        }
    }

    /// The named profile, or else the selected one (`AWS_PROFILE`, or else `default`).
    ///
    /// # Errors
    /// If the files are malformed.
    pub(super) fn get(&self, name: Option<&str>) -> Result<S3Profile, Fault> {
        if let Some(problem) = &self.broken {
            let help = "fix the file, or name another in AWS_CONFIG_FILE";
            return Err(Fault::new(problem.as_str(), help));
        }
        let name = name.unwrap_or(self.sections.selected_profile());
        let Some(profile) = self.sections.get_profile(name) else {
            return Ok(S3Profile::default());
        };
        let value = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let ignored = profile.get("ignore_configured_endpoint_urls");
        let ignored = self.ignore_endpoints
            || ignored.is_some_and(|text| text.trim().eq_ignore_ascii_case("true"));
        let of_service = profile.get("services").and_then(|services| self.of_service(services));
        let endpoint_url = of_service.or(profile.get("endpoint_url"));
        Ok(S3Profile {
            name: name.to_owned(),
            region: profile.get("region").and_then(value),
            endpoint_url: endpoint_url.filter(|_| !ignored).and_then(value),
        })
    }

    /// The `endpoint_url` below `s3 =` of `[services NAME]`.
    fn of_service(&self, services: &str) -> Option<&str> {
        let key = PropertiesKey::builder()
            .section_key("services")
            .section_name(services.trim())
            .property_name("s3")
            .sub_property_name("endpoint_url")
            .build()
            .ok()?;
        self.sections.other_sections().get(&key).map(String::as_str)
    }
}

fn sections(environment: &Environment) -> Result<EnvConfigSections, String> {
    let set = environment.iter().filter(|(_, value)| !value.trim().is_empty());
    let variables: HashMap<String, String> =
        set.map(|(name, value)| (name.clone(), value.clone())).collect();
    let (env, fs) = (Env::from(variables), Fs::real());
    // Blocks, which is fine: no worker runs yet.
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let source = runtime.block_on(source::load(&env, &fs, &EnvConfigFiles::default()));
    let source = source.map_err(|_| "the files of AWS's tools cannot be read".to_owned())?;
    EnvConfigSections::parse(source).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostic::{Location, Source};

    fn profiles(config: &str, more: &[(&str, &str)]) -> Profiles {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), config).unwrap();
        let mut environment: Environment =
            more.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        environment.insert("AWS_CONFIG_FILE".to_owned(), file.path().display().to_string());
        Profiles::load(&environment)
    }

    const FILE: &str = "[default]\nregion = eu-west-1\n\
        [profile lab]\nregion = RegionOne\nendpoint_url = http://lab:9000\nservices = ours\n\
        [profile plain]\nendpoint_url = http://plain:9000\nservices = none\n\
        [profile quiet]\nendpoint_url = http://q\nignore_configured_endpoint_urls = true\n\
        [services ours]\nsts =\n  endpoint_url = http://sts\ns3 =\n  endpoint_url = http://s3:9000\n";

    fn said(profiles: &Profiles, name: Option<&str>) -> [Option<String>; 2] {
        let S3Profile { region, endpoint_url, .. } = profiles.get(name).unwrap();
        [region, endpoint_url]
    }

    #[test]
    fn the_most_specific_endpoint_of_a_profile_counts() {
        let profiles = profiles(FILE, &[("AWS_PROFILE", " ")]);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(said(&profiles, None), [some("eu-west-1"), None]);
        assert_eq!(said(&profiles, Some("lab")), [some("RegionOne"), some("http://s3:9000")]);
        assert_eq!(said(&profiles, Some("plain")), [None, some("http://plain:9000")]);
        assert_eq!(said(&profiles, Some("quiet")), [None, None]);
        assert_eq!(said(&profiles, Some("no-such")), [None, None]);
    }

    #[test]
    fn the_environment_selects_a_profile_and_may_switch_endpoints_off() {
        let selected = profiles(FILE, &[("AWS_PROFILE", "plain")]);
        assert_eq!(said(&selected, None)[1].as_deref(), Some("http://plain:9000"));
        let off = [("AWS_PROFILE", "lab"), ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "TRUE")];
        let off = profiles(FILE, &off);
        assert_eq!(said(&off, None), [Some("RegionOne".to_owned()), None]);
    }

    #[test]
    fn a_malformed_file_is_named_with_its_line() {
        let said = profiles("[default\nregion = x\n", &[]).get(None).unwrap_err();
        let said = Location::new(Source::Environment, "").diagnostic(said).to_string();
        assert!(said.contains("on line 1"), "{said}");
    }
}
