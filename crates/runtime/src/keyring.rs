//! Secrets in the kernel's keyring: they outlive the process and not the machine, and no disk ever sees them.
//!
//! Root's are in its user keyring, which stays. Another user's user keyring may end with the user's last process; theirs
//! are in the persistent keyring, which ends when nobody asked for it for three days
//! (`/proc/sys/kernel/keys/persistent_keyring_expiry`).

use linux_keyutils::{KeyError, KeyRing, KeyRingIdentifier};
use zeroize::Zeroizing;

/// Why the keyring does not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} the kernel keyring: {why}")]
pub struct KeyringError {
    what: &'static str,
    why: KeyError,
}

/// A secret that nobody stored again for this long is forgotten.
const LIFETIME_SECS: usize = 14 * 24 * 3600;

/// What is stored under `name`, if anything.
pub fn load(name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KeyringError> {
    let wrong = |why| KeyringError { what: "read from", why };
    let ring = ring().map_err(wrong)?;
    let key = match ring.search(name) {
        Ok(key) => key,
        Err(KeyError::KeyDoesNotExist | KeyError::KeyExpired | KeyError::KeyRevoked) => return Ok(None),
        Err(error) => return Err(wrong(error)),
    };
    Ok(Some(Zeroizing::new(key.read_to_vec().map_err(wrong)?)))
}

/// Stores `secret` under `name`, or makes it last anew.
pub fn store(name: &str, secret: &[u8]) -> Result<(), KeyringError> {
    let wrong = |why| KeyringError { what: "write to", why };
    let key = ring().and_then(|ring| ring.add_key(name, secret)).map_err(wrong)?;
    key.set_timeout(LIFETIME_SECS).map_err(wrong)
}

/// Forgets what is stored under `name`.
pub fn remove(name: &str) -> Result<(), KeyringError> {
    let wrong = |why| KeyringError { what: "remove from", why };
    let ring = ring().map_err(wrong)?;
    match ring.search(name) {
        Ok(key) => key.invalidate().map_err(wrong),
        Err(KeyError::KeyDoesNotExist | KeyError::KeyExpired | KeyError::KeyRevoked) => Ok(()),
        Err(error) => Err(wrong(error)),
    }
}

/// The caller's lasting keyring. It is hung under the thread's own one first, for a service manager may have started us
/// in a session of our own, from which the user's keys cannot be read.
fn ring() -> Result<KeyRing, KeyError> {
    if rustix::process::geteuid().is_root() {
        let mine = KeyRing::from_special_id(KeyRingIdentifier::Thread, true)?;
        let users = KeyRing::from_special_id(KeyRingIdentifier::User, true)?;
        mine.link_keyring(users)?;
        Ok(users)
    } else {
        KeyRing::get_persistent(KeyRingIdentifier::Thread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_until_it_is_removed() {
        let name = format!("steeple-test:{}", std::process::id());
        match store(&name, b"one") {
            Ok(()) => {}
            // Containers may forbid it: then the error says so, and there is nothing to look for.
            Err(error) => return assert!(error.to_string().contains("the kernel keyring"), "{error}"),
        }
        store(&name, b"two").unwrap();
        let found = std::thread::spawn({
            let name = name.clone();
            move || load(&name).unwrap()
        });
        assert_eq!(found.join().unwrap().unwrap().as_slice(), b"two", "from another thread");
        remove(&name).unwrap();
        assert!(load(&name).unwrap().is_none());
        remove(&name).unwrap();
    }
}
