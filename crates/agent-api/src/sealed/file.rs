//! The file: a header that anybody can read, then sealed frames.
//!
//! ```text
//! magic       8 bytes  "STPL-AST"
//! version     u16      1
//! salt        32 bytes random, new for each file
//! mode, trust domain, agent SPIFFE ID: u16 length and text, each
//! then, until the end:
//! length      u32      of the frame, with its tag
//! frame       AES-256-GCM; nonce = the frame's number from 0
//! ```
//!
//! Numbers are big endian. Each file has a key of its own: HKDF-SHA256 of the sealing key, salted, with the whole header as
//! its context. So no nonce is used twice, and a frame of another file, agent or place does not open. The frames up to one
//! that says so are the *base*, written in one go and renamed into place; whatever is missing of it is damage. What
//! follows was appended: there, and only there, a crash may leave a last frame without its end.

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use steeple_agent_core::snapshot::Snapshot;
use steeple_spiffe::{SpiffeId, TrustDomain};
use zeroize::Zeroizing;

use super::record;

const MAGIC: &[u8; 8] = b"STPL-AST";
const VERSION: u16 = 1;
const SALT: usize = 32;
/// More is no frame of ours.
const MAX_FRAME: usize = 16 * 1024 * 1024;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("not a sealed state file")]
    Magic,
    #[error("written in version {0} of the format; this agent reads version {VERSION}")]
    Version(u16),
    #[error("this agent has no SVID of its own in agent-data.json, so nothing shows that the state is its")]
    NoAgent,
    #[error("it belongs to {what} {found:?}, not to {wanted:?}")]
    Foreign { what: &'static str, found: String, wanted: String },
    #[error("not sealed with this key, or changed since")]
    Seal,
    #[error("truncated")]
    Truncated,
    #[error("frame {frame} was changed, or is not where it was written")]
    Changed { frame: u64 },
    #[error("frame {frame} cannot be decoded: {reason}")]
    Content { frame: u64, reason: String },
}

/// Whose state it is, and where its key is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    mode: String,
    trust_domain: String,
    agent: String,
}

impl Header {
    pub fn new(mode: &str, trust_domain: &TrustDomain, agent: &SpiffeId) -> Self {
        let trust_domain = trust_domain.name().to_owned();
        Self { mode: mode.to_owned(), trust_domain, agent: agent.to_string() }
    }

    fn encode(&self, salt: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_be_bytes());
        bytes.extend(salt);
        for text in [&self.mode, &self.trust_domain, &self.agent] {
            // SPIFFE IDs have at most 2048 bytes.
            bytes.extend((text.len() as u16).to_be_bytes());
            bytes.extend(text.as_bytes());
        }
        bytes
    }
}

/// A file's own key and the number of its next frame.
struct Seal {
    key: LessSafeKey,
    frames: u64,
}

/// AWS-LC ran out of memory, or was given a key of a length that it does not know: neither happens.
#[derive(Debug)]
struct Broken;

impl From<Broken> for io::Error {
    fn from(_: Broken) -> Self {
        Self::other("the cipher does not work")
    }
}

impl Seal {
    fn new(secret: &[u8], header: &[u8]) -> Result<Self, Broken> {
        let salt = header.get(MAGIC.len() + 2..MAGIC.len() + 2 + SALT).ok_or(Broken)?;
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
        let context = [b"steeple agent state".as_slice(), header];
        let key = prk.expand(&context, &AES_256_GCM).map(UnboundKey::from).map_err(|_| Broken)?;
        Ok(Self { key: LessSafeKey::new(key), frames: 0 })
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.frames.to_be_bytes());
        self.frames += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Writes a file, or goes on writing it.
pub(super) struct Writer {
    file: File,
    seal: Seal,
    /// Bytes written.
    pub written: u64,
}

impl Writer {
    /// Begins a file that nobody else can read, under another name until [`Writer::publish`].
    pub fn create(temporary: &Path, secret: &[u8], header: &Header) -> io::Result<Self> {
        let _ = fs::remove_file(temporary);
        let mut salt = [0; SALT];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| io::Error::other("no random bytes"))?;
        let header = header.encode(&salt);
        let seal = Seal::new(secret, &header)?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
        file.write_all(&header)?;
        Ok(Self { file, seal, written: header.len() as u64 })
    }

    /// Seals `frame` and appends it. After an error the file must not be written on: a number is used once.
    pub fn append(&mut self, mut frame: Zeroizing<Vec<u8>>) -> io::Result<()> {
        let nonce = self.seal.nonce();
        // In place, where the plain bytes were.
        let sealed = self.seal.key.seal_in_place_append_tag(nonce, Aad::empty(), &mut *frame);
        sealed.map_err(|_| Broken)?;
        self.file.write_all(&(frame.len() as u32).to_be_bytes())?;
        self.file.write_all(&frame)?;
        self.written += frame.len() as u64 + 4;
        Ok(())
    }

    /// Returns once it is on the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Puts it where it belongs: a crash leaves the old file or the new one.
    pub fn publish(&self, temporary: &Path, path: &Path) -> io::Result<()> {
        self.sync()?;
        fs::rename(temporary, path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}

/// Reads a file from its beginning.
pub(super) struct Reader {
    input: BufReader<File>,
    /// As it is in the file.
    raw: Vec<u8>,
    header: Header,
}

impl Reader {
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let mut input = BufReader::with_capacity(256 * 1024, File::open(path)?);
        let mut raw = vec![0; MAGIC.len()];
        // What is too short for that is no file of ours either.
        input.read_exact(&mut raw).map_err(|_| ReadError::Magic)?;
        if raw != MAGIC {
            return Err(ReadError::Magic);
        }
        let version = u16::from_be_bytes(take(&mut input, &mut raw)?);
        if version != VERSION {
            return Err(ReadError::Version(version));
        }
        take::<SALT>(&mut input, &mut raw)?;
        let mut text = || -> Result<String, ReadError> {
            let length = u16::from_be_bytes(take(&mut input, &mut raw)?);
            let mut bytes = vec![0; usize::from(length)];
            read_exact(&mut input, &mut bytes)?;
            raw.extend(&bytes);
            String::from_utf8(bytes).map_err(|_| ReadError::Magic)
        };
        let header = Header { mode: text()?, trust_domain: text()?, agent: text()? };
        Ok(Self { input, raw, header })
    }

    /// Says what is wrong where the key would only say that something is.
    pub fn belongs_to(&self, wanted: &Header) -> Result<(), ReadError> {
        let (found, w) = (&self.header, wanted);
        let parts = [
            ("trust domain", &found.trust_domain, &w.trust_domain),
            ("agent", &found.agent, &w.agent),
            ("sealing mode", &found.mode, &w.mode),
        ];
        match parts.into_iter().find(|(_, found, wanted)| found != wanted) {
            Some((what, found, wanted)) => {
                Err(ReadError::Foreign { what, found: found.clone(), wanted: wanted.clone() })
            }
            None => Ok(()),
        }
    }

    /// What the file holds, and whether its last frame is without its end.
    pub fn snapshot(&mut self, secret: &[u8]) -> Result<(Snapshot, bool), ReadError> {
        let mut seal = Seal::new(secret, &self.raw).map_err(|_| ReadError::Seal)?;
        let mut snapshot = Snapshot::default();
        let mut in_base = true;
        loop {
            let frame = seal.frames;
            let sealed = match self.next_frame() {
                Ok(Some(sealed)) => sealed,
                Ok(None) if in_base => return Err(ReadError::Truncated),
                Ok(None) => return Ok((snapshot, false)),
                Err(ReadError::Truncated) if !in_base => return Ok((snapshot, true)),
                Err(error) => return Err(error),
            };
            let mut bytes = Zeroizing::new(sealed);
            let plain = seal.key_open(&mut bytes);
            let plain = plain.map_err(|Broken| match frame {
                0 => ReadError::Seal,
                frame => ReadError::Changed { frame },
            })?;
            let ends_base =
                record::apply(plain, &mut snapshot).map_err(|reason| ReadError::Content { frame, reason })?;
            in_base &= !ends_base;
        }
    }

    /// `None` at the end.
    fn next_frame(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        let mut length = [0; 4];
        match self.input.read(&mut length[..1])? {
            0 => return Ok(None),
            _ => read_exact(&mut self.input, &mut length[1..])?,
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_FRAME {
            return Err(ReadError::Magic);
        }
        let mut frame = vec![0; length];
        read_exact(&mut self.input, &mut frame)?;
        Ok(Some(frame))
    }
}

impl Seal {
    fn key_open<'a>(&mut self, bytes: &'a mut [u8]) -> Result<&'a [u8], Broken> {
        let nonce = self.nonce();
        match self.key.open_in_place(nonce, Aad::empty(), bytes) {
            Ok(plain) => Ok(plain),
            Err(_) => Err(Broken),
        }
    }
}

fn take<const N: usize>(input: &mut BufReader<File>, raw: &mut Vec<u8>) -> Result<[u8; N], ReadError> {
    let mut bytes = [0; N];
    read_exact(input, &mut bytes)?;
    raw.extend(bytes);
    Ok(bytes)
}

fn read_exact(input: &mut BufReader<File>, bytes: &mut [u8]) -> Result<(), ReadError> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ReadError::Truncated,
        _ => ReadError::Io(error),
    })
}
