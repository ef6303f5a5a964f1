//! The `[auth]` of the configuration.

use super::section::Section;
use crate::auth::tokens::subject;
use crate::auth::{Account, Audiences, EVERYWHERE, Mode, Options, Rate, Roles, Source, Terms, VerifyingKey};
use std::collections::BTreeSet;
use std::io::Read;
use std::num::NonZeroU32;
use std::path::Path;
use toml::Value;

/// Longest public key file, in bytes.
const KEY_BYTES: u64 = 16 * 1024;

/// Highest rate that can be set, in calls per second.
const RATE: u64 = 1_000_000;

/// Reads the section; faults are noted in it.
pub(super) fn read(mut section: Section<'_>, base: &Path) -> Options {
    let mode = section.text("mode", "none");
    let (file, issuer, audience) = (section.optional_text("file"), section.optional_text("issuer"), section.optional_text("audience"));
    let (url, jwks_file, ca) = (section.optional_text("jwks_url"), section.optional_text("jwks_file"), section.optional_text("ca"));
    let audiences = audiences(&mut section);
    let rate = rate(&mut section);
    let accounts = accounts(section.sections("service_accounts"), base);

    // What is written for another mode would be believed to count.
    let stray = |keys: &[(&str, bool)], mode: &str| {
        for (key, _) in keys.iter().filter(|(_, is_given)| *is_given) {
            section.fault(key, &format!("counts only with mode = {mode}"));
        }
    };
    let of_jwt =
        [("issuer", issuer.is_some()), ("audience", audience.is_some()), ("jwks_url", url.is_some()), ("jwks_file", jwks_file.is_some()), ("ca", ca.is_some())];
    let mode = match mode.as_str() {
        "none" => {
            stray(&[("file", file.is_some())], "\"tokens\"");
            stray(&of_jwt, "\"jwt\"");
            stray(&[("service_accounts", !accounts.is_empty()), ("token_audiences", audiences.is_some())], "\"tokens\" or \"jwt\"");
            Mode::Open
        }
        "tokens" => {
            stray(&of_jwt, "\"jwt\"");
            if file.as_deref().unwrap_or_default().is_empty() {
                section.fault("file", "must name the token file, which `redkeep token create --file FILE` makes");
            }
            Mode::Tokens(base.join(file.unwrap_or_default()))
        }
        "jwt" => {
            stray(&[("file", file.is_some())], "\"tokens\"");
            let needed = |key: &str, value: Option<String>, what: &str| {
                value.filter(|text| !text.is_empty()).unwrap_or_else(|| {
                    section.fault(key, what);
                    String::new()
                })
            };
            let issuer = needed("issuer", issuer, "must be the `iss` of the JWTs to take");
            let audience = needed("audience", audience, "must be the `aud` of the JWTs to take");
            if ca.is_some() && url.is_none() {
                section.fault("ca", "counts only with jwks_url");
            }
            let source = match (url, jwks_file) {
                (Some(url), None) => Source::url(&url, ca.map(|ca| base.join(ca))).unwrap_or_else(|what| {
                    section.fault("jwks_url", what);
                    Source::File(base.to_owned())
                }),
                (None, Some(file)) => Source::File(base.join(file)),
                (Some(_), Some(_)) => {
                    section.fault("jwks_file", "cannot stand beside jwks_url");
                    Source::File(base.to_owned())
                }
                (None, None) => {
                    section.fault("jwks_url", "must say where the keys of the issuer are; or name a file with jwks_file");
                    Source::File(base.to_owned())
                }
            };
            Mode::Jwt(Terms { issuer, audience }, source)
        }
        _ => {
            section.fault("mode", "must be \"none\", \"tokens\" or \"jwt\"");
            // Only the faults are looked at; one about addresses would add nothing.
            Mode::Tokens(base.to_owned())
        }
    };
    section.end();
    Options { mode, accounts, audiences: audiences.unwrap_or(Audiences::AnyHost), rate }
}

fn audiences(section: &mut Section<'_>) -> Option<Audiences> {
    let audiences = section.texts("token_audiences");
    (!audiences.is_empty()).then_some(Audiences::These(audiences))
}

fn rate(section: &mut Section<'_>) -> Option<Rate> {
    let number = |value: u64| u32::try_from(value).ok().and_then(NonZeroU32::new);
    let per_second = section.integer("rate_limit", 0, 1..=RATE);
    let burst = section.integer("rate_burst", 0, 1..=RATE);
    if burst != 0 && per_second == 0 {
        section.fault("rate_burst", "counts only with rate_limit");
    }
    let per_second = number(per_second)?;
    Some(Rate { per_second, burst: number(burst).unwrap_or(per_second) })
}

fn accounts(sections: Vec<Section<'_>>, base: &Path) -> Vec<Account> {
    let mut key_ids = BTreeSet::new();
    let mut accounts = Vec::new();
    for mut section in sections {
        if let Some(account) = account(&mut section, base, &mut key_ids) {
            accounts.push(account);
        }
        section.end();
    }
    accounts
}

fn account(section: &mut Section<'_>, base: &Path, key_ids: &mut BTreeSet<String>) -> Option<Account> {
    let mut name = |key: &str| {
        let name = subject(&section.optional_text(key).unwrap_or_default());
        name.map_err(|_| section.fault(key, "must be given, as 1 to 256 visible ASCII characters")).ok()
    };
    let (id, key_id) = (name("id"), name("key_id"));
    if let Some(key_id) = &key_id
        && !key_ids.insert(key_id.clone())
    {
        section.fault("key_id", "another key has it already");
    }
    let key = key(section, base);
    let roles = match section.value("roles") {
        Some(Value::Table(table)) if !table.is_empty() => {
            let pairs: Option<Vec<(&str, &str)>> = table.iter().map(|(folder, role)| Some((folder.as_str(), role.as_str()?))).collect();
            let roles = pairs.ok_or("must be texts".to_owned()).and_then(|pairs| Roles::read(pairs).map_err(|fault| fault.to_string()));
            roles.map_err(|what| section.fault("roles", &what)).ok()
        }
        _ => {
            section.fault("roles", &format!("must give roles by folder, such as {{ shop = \"editor\", \"{EVERYWHERE}\" = \"viewer\" }}"));
            None
        }
    };
    Some(Account { id: id?, key_id: key_id?, key: key?, roles: roles? })
}

fn key(section: &mut Section<'_>, base: &Path) -> Option<VerifyingKey> {
    let (name, pem) = match (section.optional_text("public_key_file"), section.optional_text("public_key")) {
        (Some(file), None) => match read_key(&base.join(file)) {
            Ok(pem) => ("public_key_file", pem),
            Err(what) => {
                section.fault("public_key_file", &what);
                return None;
            }
        },
        (None, Some(pem)) => ("public_key", pem),
        (Some(_), Some(_)) => {
            section.fault("public_key", "cannot stand beside public_key_file");
            return None;
        }
        (None, None) => {
            section.fault("public_key_file", "must name the public key in PEM; or give it as public_key");
            return None;
        }
    };
    VerifyingKey::from_pem(&pem).map_err(|fault| section.fault(name, &fault.to_string())).ok()
}

fn read_key(file: &Path) -> Result<String, String> {
    let cannot = |fault: std::io::Error| format!("cannot be read: {}", fault.kind());
    if !std::fs::metadata(file).map_err(cannot)?.is_file() {
        return Err("is no file".to_owned());
    }
    let mut pem = String::new();
    std::fs::File::open(file).and_then(|file| file.take(KEY_BYTES).read_to_string(&mut pem)).map_err(cannot)?;
    Ok(pem)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::super::section::Faults;
    use super::*;
    use crate::auth::Role;

    /// A key whose other half was thrown away.
    const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAElqROyDN0b6Quy9GhCZdAfZHmr3Yd\nMR31qS8W7CsNKuP8LAD03jHR+jjWHe04Wsu5hiTPXwU5QEGBCH06LGONUQ==\n-----END PUBLIC KEY-----\n";

    fn read_in(text: &str, base: &Path) -> Result<Options, Vec<String>> {
        let faults = Faults::default();
        let options = read(Section::new("auth", text.parse().unwrap(), &faults), base);
        let faults = faults.take();
        if faults.is_empty() { Ok(options) } else { Err(faults) }
    }

    #[test]
    fn every_mode_is_read() {
        let base = Path::new("/etc/redkeep");
        assert!(matches!(read_in("", base).unwrap().mode, Mode::Open));
        let tokens = read_in("mode = \"tokens\"\nfile = \"secrets/tokens\"\nrate_limit = 50\n", base).unwrap();
        assert!(matches!(tokens.mode, Mode::Tokens(path) if path == Path::new("/etc/redkeep/secrets/tokens")));
        let rate = tokens.rate.unwrap();
        assert_eq!((rate.per_second.get(), rate.burst.get()), (50, 50));

        let jwt = "mode = \"jwt\"\nissuer = \"https://id.example\"\naudience = \"redkeep\"\n";
        let of_url = read_in(&format!("{jwt}jwks_url = \"https://id.example/keys\"\nca = \"ca.pem\"\nrate_limit = 5\nrate_burst = 9\n"), base).unwrap();
        let Mode::Jwt(terms, Source::Url(url, ca)) = of_url.mode else { panic!("not a URL") };
        assert_eq!((terms.issuer.as_str(), terms.audience.as_str(), url.as_str()), ("https://id.example", "redkeep", "https://id.example/keys"));
        assert_eq!((ca.as_deref(), of_url.rate.unwrap().burst.get()), (Some(Path::new("/etc/redkeep/ca.pem")), 9));
        let of_file = read_in(&format!("{jwt}jwks_file = \"keys.json\"\n"), base).unwrap();
        assert!(matches!(of_file.mode, Mode::Jwt(_, Source::File(path)) if path == Path::new("/etc/redkeep/keys.json")));
    }

    #[test]
    fn accounts_have_keys_and_roles() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("robot.pem"), KEY).unwrap();
        let text = format!(
            "mode = \"tokens\"\nfile = \"tokens\"\ntoken_audiences = [\"https://keep.example/iam/v1/tokens\"]\n\
             [[service_accounts]]\nid = \"robot\"\nkey_id = \"key1\"\npublic_key_file = \"robot.pem\"\nroles = {{ shop = \"editor\", \"*\" = \"viewer\" }}\n\
             [[service_accounts]]\nid = \"robot\"\nkey_id = \"key2\"\npublic_key = \"\"\"{KEY}\"\"\"\nroles = {{ news = \"auditor\" }}\n"
        );
        let options = read_in(&text, folder.path()).unwrap();
        assert_eq!(options.audiences, Audiences::These(vec!["https://keep.example/iam/v1/tokens".into()]));
        let shown: Vec<_> = options.accounts.iter().map(|account| (account.id.as_str(), account.key_id.as_str(), account.roles.greatest())).collect();
        assert_eq!(shown, [("robot", "key1", Some(Role::Editor)), ("robot", "key2", Some(Role::Auditor))]);
    }

    #[test]
    fn every_fault_is_told_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("private.pem"), KEY.replace("PUBLIC", "PRIVATE")).unwrap();
        let account = |lines: &str| format!("mode = \"tokens\"\nfile = \"t\"\n[[service_accounts]]\n{lines}\n");
        let good = format!("id = \"a\"\nkey_id = \"k\"\nroles = {{ shop = \"editor\" }}\npublic_key = \"\"\"{KEY}\"\"\"");
        assert!(read_in(&account(&good), folder.path()).is_ok());
        for (text, expected) in [
            ("mode = \"password\"".to_owned(), &["auth.mode: "][..]),
            ("mode = \"none\"\nfile = \"t\"\nissuer = \"i\"".to_owned(), &["auth.file: ", "auth.issuer: "]),
            ("mode = \"none\"\ntoken_audiences = [\"a\"]".to_owned(), &["auth.token_audiences: "]),
            ("mode = \"tokens\"".to_owned(), &["auth.file: "]),
            ("mode = \"tokens\"\nfile = \"t\"\njwks_url = \"https://a/\"".to_owned(), &["auth.jwks_url: "]),
            ("mode = \"jwt\"".to_owned(), &["auth.issuer: ", "auth.audience: ", "auth.jwks_url: "]),
            (
                "mode = \"jwt\"\nissuer = \"i\"\naudience = \"a\"\njwks_url = \"http://far/\"\nca = \"c\"\nfile = \"t\"".to_owned(),
                &["auth.file: ", "auth.jwks_url: "],
            ),
            ("mode = \"jwt\"\nissuer = \"i\"\naudience = \"a\"\njwks_url = \"https://a/\"\njwks_file = \"f\"".to_owned(), &["auth.jwks_file: "]),
            ("mode = \"jwt\"\nissuer = \"i\"\naudience = \"a\"\njwks_file = \"f\"\nca = \"c\"".to_owned(), &["auth.ca: "]),
            ("rate_limit = 0".to_owned(), &["auth.rate_limit: "]),
            ("rate_burst = 5".to_owned(), &["auth.rate_burst: "]),
            ("colour = \"red\"".to_owned(), &["auth.colour: "]),
            (
                account(""),
                &[
                    "auth.service_accounts[0].id: ",
                    "auth.service_accounts[0].key_id: ",
                    "auth.service_accounts[0].public_key_file: ",
                    "auth.service_accounts[0].roles: ",
                ],
            ),
            (account(&good.replace("editor", "owner")), &["auth.service_accounts[0].roles: "]),
            (account(&format!("{good}\n[[service_accounts]]\n{good}")), &["auth.service_accounts[1].key_id: "]),
            (account(&format!("{good}\npublic_key_file = \"f\"")), &["auth.service_accounts[0].public_key: "]),
            (
                account("id = \"a\"\nkey_id = \"k\"\nroles = { shop = 1 }\npublic_key_file = \"private.pem\""),
                &["auth.service_accounts[0].public_key_file: ", "auth.service_accounts[0].roles: "],
            ),
            (account("id = \"a\"\nkey_id = \"k\"\nroles = { shop = \"viewer\" }\npublic_key_file = \"no\""), &["auth.service_accounts[0].public_key_file: "]),
        ] {
            let faults = read_in(&text, folder.path()).unwrap_err();
            let keys: Vec<String> = faults.iter().map(|fault| format!("{}: ", fault.split(": ").next().unwrap())).collect();
            assert_eq!(keys, expected, "{text}\n{faults:#?}");
        }
    }
}
