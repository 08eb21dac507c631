use std::fs;

use tempfile::TempDir;

use super::*;

fn config(mode: SealingMode) -> SealingKeyConfig {
    SealingKeyConfig { mode, path: None, credentials: None, file_allowed: true }
}

fn find(config: &SealingKeyConfig, dir: &TempDir) -> Result<Option<SealingKey>, KeyError> {
    SealingKey::find(config, dir.path())
}

#[test]
fn a_credential_comes_first_and_is_never_replaced() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join(CREDENTIAL), [7; 48]).unwrap();
    let config = SealingKeyConfig { credentials: Some(dir.path().to_owned()), ..config(SealingMode::Auto) };
    let mut key = find(&config, &dir).unwrap().unwrap();
    assert_eq!((key.mode(), key.secret(), key.is_new()), ("credential", &[7; 48][..], false));
    key.renew().unwrap();
    assert_eq!(key.secret(), [7; 48]);
    fs::write(dir.path().join(CREDENTIAL), [7; 31]).unwrap();
    let error = find(&config, &dir).unwrap_err().to_string();
    assert!(error.contains("31 bytes") && error.contains("at least 32"), "{error}");
}

#[test]
fn a_credential_that_is_asked_for_and_missing_is_an_error() {
    let dir = TempDir::new().unwrap();
    for credentials in [None, Some(dir.path().to_owned())] {
        let config = SealingKeyConfig { credentials, ..config(SealingMode::Credential) };
        let error = find(&config, &dir).unwrap_err().to_string();
        assert!(error.contains("LoadCredentialEncrypted="), "{error}");
    }
}

#[test]
fn a_file_is_made_once_and_must_be_private_and_whole() {
    let dir = TempDir::new().unwrap();
    let config = config(SealingMode::File);
    let made = find(&config, &dir).unwrap().unwrap();
    assert!(made.is_new() && made.secret().len() == 32);
    let found = find(&config, &dir).unwrap().unwrap();
    assert!(!found.is_new());
    assert_eq!(found.secret(), made.secret());
    let path = dir.path().join(FILE);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = find(&config, &dir).unwrap_err().to_string();
    assert!(error.contains("0640") && error.contains("chmod 600"), "{error}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, "short").unwrap();
    let error = find(&config, &dir).unwrap_err().to_string();
    assert!(error.contains("5 bytes"), "{error}");
    let elsewhere = SealingKeyConfig { path: Some(dir.path().join("no/such/key")), ..config };
    let error = find(&elsewhere, &dir).unwrap_err().to_string();
    assert!(error.contains("cannot write") && error.contains("no/such/key"), "{error}");
}

#[test]
fn the_keyring_keeps_a_key_for_each_data_directory_or_says_why_not() {
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let config = config(SealingMode::Keyring);
    let mut first = match find(&config, &dirs[0]) {
        Ok(key) => key.unwrap(),
        // Containers may forbid it: `auto` takes a file then.
        Err(error) => {
            assert!(error.to_string().contains("choose another mode"), "{error}");
            let auto = find(&self::config(SealingMode::Auto), &dirs[0]).unwrap().unwrap();
            return assert_eq!(auto.mode(), "file");
        }
    };
    assert_eq!((first.mode(), first.is_new()), ("keyring", true));
    let again = find(&config, &dirs[0]).unwrap().unwrap();
    assert_eq!((again.secret(), again.is_new()), (first.secret(), false));
    assert_ne!(find(&config, &dirs[1]).unwrap().unwrap().secret(), first.secret());
    first.renew().unwrap();
    first.refresh().unwrap();
    assert_ne!(first.secret(), again.secret());
    assert_eq!(find(&config, &dirs[0]).unwrap().unwrap().secret(), first.secret());
    assert_eq!(fs::read_dir(dirs[0].path()).unwrap().count(), 0, "nothing on disk");
    for dir in &dirs {
        let name = format!("steeple-agent-state:{}", absolute(dir.path()).display());
        keyring::remove(&name).unwrap();
    }
}

#[test]
fn debug_shows_where_and_not_what() {
    let dir = TempDir::new().unwrap();
    let key = find(&config(SealingMode::File), &dir).unwrap().unwrap();
    let text = format!("{key:?}");
    assert!(text.contains("agent-state.key") && !text.contains("secret"), "{text}");
}

#[test]
fn modes_are_read_by_name() {
    for (name, mode) in
        [("auto", SealingMode::Auto), ("off", SealingMode::Off), ("keyring", SealingMode::Keyring)]
    {
        assert_eq!(name.parse::<SealingMode>().unwrap(), mode);
    }
    let error = "tpm".parse::<SealingMode>().unwrap_err().to_string();
    assert!(error.contains("\"tpm\" is unknown") && error.contains("credential"), "{error}");
}
