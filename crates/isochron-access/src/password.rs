//! Passwords: which are taken, and their hashes.
//!
//! A hash is Argon2id's (RFC 9106) in the PHC string format, with the parameters
//! that OWASP recommends as a minimum (19 MiB, two passes, one lane); some 30 ms on a
//! processor of today. Hashing is done off the async threads, and only a few at a
//! time: whoever sends many passwords waits, and takes neither all processors nor all
//! memory.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use isochron_engine::{EngineError, ErrorKind};
use md4::{Digest, Md4};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// The shortest password, in characters.
pub const PASSWORD_MIN: usize = 8;
/// The longest, in bytes.
pub const PASSWORD_MAX: usize = 1024;

/// A password, forgotten when it is dropped.
pub(crate) type Password = Zeroizing<String>;

/// Whether a password may be set.
pub(crate) fn check(password: &str) -> Result<(), EngineError> {
    let invalid = |message: String| Err(EngineError::new(ErrorKind::InvalidParameter, message));
    if password.chars().count() < PASSWORD_MIN {
        return invalid(format!("a password has at least {PASSWORD_MIN} characters"));
    }
    if password.len() > PASSWORD_MAX {
        return invalid(format!("a password has at most {PASSWORD_MAX} bytes"));
    }
    // Basic cannot carry them (RFC 7617 §2).
    if password.chars().any(char::is_control) {
        return invalid("a password has no control characters".into());
    }
    Ok(())
}

/// Hashes passwords and compares them, a few at a time.
#[derive(Debug)]
pub(crate) struct Hashing {
    places: Semaphore,
}

impl Hashing {
    /// On half of the processors at most.
    pub(crate) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            places: Semaphore::new((processors / 2).max(1)),
        }
    }

    /// A password's hash, with a salt of its own.
    pub(crate) async fn hash(&self, password: Password) -> Result<String, EngineError> {
        self.run(move || {
            let hash = Argon2::default().hash_password(password.as_bytes());
            hash.map(|hash| hash.to_string()).map_err(failed)
        })
        .await?
    }

    /// Whether a hash is this password's.
    pub(crate) async fn verify(
        &self,
        password: Password,
        hash: String,
    ) -> Result<bool, EngineError> {
        self.run(move || {
            let hash = PasswordHash::new(&hash).map_err(failed)?;
            let verified = Argon2::default().verify_password(password.as_bytes(), &hash);
            Ok(verified.is_ok())
        })
        .await?
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let _place = self.places.acquire().await.map_err(failed)?;
        tokio::task::spawn_blocking(work).await.map_err(failed)
    }
}

/// A password's NT hash, in hexadecimal: MD4 of its UTF-16 (MS-NLMP §3.3.1, NTOWFv1). It
/// has no salt and is no secret from who guesses; NTLM can be spoken with no other.
pub(crate) fn nt_hash(password: &Password) -> String {
    let mut units: Zeroizing<Vec<u8>> = Zeroizing::default();
    units.extend(password.encode_utf16().flat_map(u16::to_le_bytes));
    let digits = Md4::digest(&*units);
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of these digits, if it is one.
pub(crate) fn nt_hash_of(digits: &str) -> Option<Zeroizing<[u8; 16]>> {
    let mut hash = Zeroizing::new([0; 16]);
    if digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(hash)
}

/// A password that nobody knows.
pub(crate) fn unknown() -> Result<Password, EngineError> {
    let mut bytes = Zeroizing::new([0; 32]);
    let filled = SystemRandom::new().fill(bytes.as_mut());
    filled.map_err(|_| failed("there is no randomness"))?;
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    Ok(Zeroizing::new(digits.collect()))
}

fn failed(error: impl std::fmt::Display) -> EngineError {
    let message = format!("a password could not be hashed: {error}");
    EngineError::new(ErrorKind::Failed, message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_is_argon2id_of_its_password_alone() {
        let hashing = Hashing::new();
        let password = || Password::new("correct horse".into());
        let hash = hashing.hash(password()).await.unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        assert!(!hash.contains("horse"));
        assert!(hashing.verify(password(), hash.clone()).await.unwrap());
        let wrong = Password::new("correct horsf".into());
        assert!(!hashing.verify(wrong, hash.clone()).await.unwrap());
        let again = hashing.hash(password()).await.unwrap();
        assert_ne!(again, hash, "each has its salt");
        assert!(hashing.verify(password(), "nothing".into()).await.is_err());
    }

    #[test]
    fn an_nt_hash_is_that_of_the_specification() {
        // MS-NLMP §4.2.2.1.2.
        let digits = nt_hash(&Password::new("Password".into()));
        assert_eq!(digits, "a4f49c406510bdcab6824ee7c30fd852");
        assert_eq!(nt_hash_of(&digits).unwrap()[..2], [0xa4, 0xf4]);
        for none in [
            "",
            "a4",
            "zz".repeat(16).as_str(),
            "\u{e4}".repeat(16).as_str(),
        ] {
            assert_eq!(nt_hash_of(none), None);
        }
    }

    #[test]
    fn passwords_are_neither_short_nor_endless() {
        for (password, taken) in [
            ("", false),
            ("1234567", false),
            ("12345678", true),
            ("äöüäöüä", false),
            ("a:b c%ü€😀", true),
            ("12345678\n", false),
            (&"x".repeat(PASSWORD_MAX), true),
            (&"x".repeat(PASSWORD_MAX + 1), false),
        ] {
            assert_eq!(check(password).is_ok(), taken, "{password}");
        }
        assert_ne!(unknown().unwrap(), unknown().unwrap());
    }
}
