//! Keys as they are written down: in a TOML file, or as `name:sha256` in a setting.

use serde::Deserialize;
use windlass_wording::plain;

use super::authorization::{KeyDigest, digest};
use super::limits::KeyLimits;
use crate::error::CoordinatorError;

/// Longest name; it is a label of metrics.
const NAME_LENGTH_LIMIT: usize = 64;

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyEntry {
    pub(super) name: String,
    pub(super) digest: KeyDigest,
    pub(super) is_admin: bool,
    pub(super) limits: KeyLimits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    key: Vec<RawKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    name: String,
    sha256: String,
    #[serde(default)]
    admin: bool,
    max_concurrent_requests: Option<u32>,
    requests_per_minute: Option<u32>,
    tokens_per_minute: Option<u32>,
    priority_max: Option<i32>,
    max_open_jobs: Option<u32>,
}

/// What to add to a file of API keys for `key` to be one of them.
pub fn api_key_entry(name: &str, key: &str, admin: bool) -> Result<String, CoordinatorError> {
    let name = checked_name(name).map_err(|reason| CoordinatorError::Config { field: "name", reason })?;
    let hex: String = digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let admin = if admin { "admin = true\n" } else { "" };
    Ok(format!("[[key]]\nname = \"{name}\"\nsha256 = \"{hex}\"\n{admin}"))
}

/// Reads the text of a file of keys.
pub(super) fn read_file(text: &str) -> Result<Vec<KeyEntry>, String> {
    let file: RawFile = toml::from_str(text).map_err(|error| {
        // Without the line itself: whoever wrote a key where its digest belongs finds it in no log.
        let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        format!("line {line}: {}", plain(error.message()))
    })?;
    file.key.into_iter().map(RawKey::entry).collect()
}

/// Reads one `name:sha256`; such a key has no limits and is no admin.
pub(super) fn read_pair(pair: &str) -> Result<KeyEntry, String> {
    let (name, sha256) =
        pair.rsplit_once(':').ok_or("an entry has no colon: use name:sha256, separated by commas")?;
    Ok(KeyEntry {
        name: checked_name(name)?,
        digest: checked_digest(name, sha256)?,
        is_admin: false,
        limits: KeyLimits::default(),
    })
}

/// Refuses a name or a key that is there twice.
pub(super) fn refuse_doubles(entries: &[KeyEntry]) -> Result<(), String> {
    for (index, entry) in entries.iter().enumerate() {
        for other in &entries[..index] {
            if other.name == entry.name {
                return Err(format!("the name '{}' is there twice: give each key its own", entry.name));
            }
            if other.digest == entry.digest {
                let (first, second) = (&other.name, &entry.name);
                return Err(format!("'{first}' and '{second}' are the same key: remove one"));
            }
        }
    }
    Ok(())
}

impl RawKey {
    fn entry(self) -> Result<KeyEntry, String> {
        let name = checked_name(&self.name)?;
        let limits = [
            ("max_concurrent_requests", self.max_concurrent_requests),
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_minute", self.tokens_per_minute),
            ("max_open_jobs", self.max_open_jobs),
        ];
        if let Some((field, _)) = limits.iter().find(|(_, limit)| *limit == Some(0)) {
            return Err(format!("key '{name}': {field} is 0: use at least 1, or remove the key"));
        }
        Ok(KeyEntry {
            digest: checked_digest(&name, &self.sha256)?,
            name,
            is_admin: self.admin,
            limits: KeyLimits {
                max_concurrent_requests: self.max_concurrent_requests,
                requests_per_minute: self.requests_per_minute,
                tokens_per_minute: self.tokens_per_minute,
                priority_max: self.priority_max,
                max_open_jobs: self.max_open_jobs,
            },
        })
    }
}

fn checked_name(name: &str) -> Result<String, String> {
    let is_plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@".contains(c));
    if name.is_empty() || name.len() > NAME_LENGTH_LIMIT || !is_plain(name) {
        return Err(format!(
            "a key's name is not one: use 1 to {NAME_LENGTH_LIMIT} letters, digits, and any of - _ . @"
        ));
    }
    Ok(name.to_owned())
}

/// The text is never repeated: it may be the key itself.
fn checked_digest(name: &str, hex: &str) -> Result<KeyDigest, String> {
    let bytes: Option<Vec<u8>> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(hex.get(at..at + 2).filter(|_| hex.is_ascii())?, 16).ok())
        .collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
        format!(
            "key '{name}': sha256 is not 64 hexadecimal digits: use the SHA-256 of the key, \
             as `windlass keys generate` prints it"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_key_is_read_with_its_limits() {
        let text = format!(
            "[[key]]\nname = 'team'\nsha256 = '{ABC}'\nadmin = true\nmax_concurrent_requests = 2\n\
             requests_per_minute = 3\ntokens_per_minute = 4\npriority_max = -1\nmax_open_jobs = 5\n"
        );
        let limits = KeyLimits {
            max_concurrent_requests: Some(2),
            requests_per_minute: Some(3),
            tokens_per_minute: Some(4),
            priority_max: Some(-1),
            max_open_jobs: Some(5),
        };
        let digest = digest(b"abc");
        let expected = KeyEntry { name: "team".into(), digest, is_admin: true, limits };
        assert_eq!(read_file(&text), Ok(vec![expected]));
        assert_eq!(read_file(""), Ok(vec![]));
        // As `printf abc | sha256sum` says.
        assert!(api_key_entry("team", "abc", true).unwrap().contains(ABC));
        assert!(read_file(&api_key_entry("team", "abc", true).unwrap()).unwrap()[0].is_admin);
    }

    #[test]
    fn a_pair_is_a_key_without_limits() {
        let entry = read_pair(&format!("team:{ABC}")).unwrap();
        assert_eq!(
            (entry.name.as_str(), entry.is_admin, entry.limits),
            ("team", false, KeyLimits::default())
        );
        assert!(read_pair("sk-secret").unwrap_err().contains("name:sha256"));
    }

    #[test]
    fn wrong_entries_are_named_and_never_repeated() {
        let cases = [
            (format!("[[key]]\nname = 'a'\nsha256 = '{ABC}'\nrpm = 3"), "line 4: unknown field 'rpm'"),
            ("[[key]]\nname = 'a'".into(), "sha256 is missing"),
            ("[[key]]\nname = 'a'\nsha256 = 'sk-secret'".into(), "key 'a': sha256 is not 64 hex"),
            ("[[key]]\nname = 'a'\nsha256 = sk-secret".into(), "line 3: "),
            (format!("[[key]]\nname = ''\nsha256 = '{ABC}'"), "a key's name is not one"),
            (
                format!("[[key]]\nname = 'a'\nsha256 = '{ABC}'\nrequests_per_minute = 0"),
                "key 'a': requests_per_minute is 0",
            ),
        ];
        for (text, expected) in cases {
            let message = read_file(&text).unwrap_err();
            assert!(message.contains(expected) && !message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn doubles_are_refused() {
        let entry = |name: &str, digest: u8| KeyEntry {
            name: name.into(),
            digest: [digest; 32],
            is_admin: false,
            limits: KeyLimits::default(),
        };
        assert!(refuse_doubles(&[entry("a", 1), entry("b", 2)]).is_ok());
        assert!(refuse_doubles(&[entry("a", 1), entry("a", 2)]).unwrap_err().contains("'a' is there twice"));
        assert!(refuse_doubles(&[entry("a", 1), entry("b", 1)]).unwrap_err().contains("the same key"));
    }
}
