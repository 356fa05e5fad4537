//! A golden file: one value a line, its name and its bytes in hexadecimal.

use std::fmt::{Debug, Write};
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

/// Set to write the files instead of comparing with them; each test that wrote fails.
const WRITE: &str = "DTM_WRITE_GOLDEN";

/// The folder of version 1.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/v1")
}

/// Names and bytes of a file as it is committed, and the package that its first line names.
pub(crate) fn read(path: &Path) -> (String, Vec<(String, Bytes)>) {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let package = first.strip_prefix("# ").unwrap_or_else(|| panic!("{}: no head", path.display()));
    let value = |line: &str| {
        let (name, hex) = line.split_once(' ').expect("a name and bytes");
        (name.to_owned(), Bytes::from(unhex(hex)))
    };
    (package.to_owned(), lines.map(value).collect())
}

/// Values that are being compared with a file.
pub(crate) struct Golden {
    path: PathBuf,
    package: String,
    kept: Vec<(String, Bytes)>,
    made: Vec<(String, Bytes)>,
    is_writing: bool,
}

impl Golden {
    /// `NAME.txt`, whose messages are of a package, or which holds what is no message (`bytes`).
    pub(crate) fn open(name: &str, package: &str) -> Self {
        let path = folder().join(format!("{name}.txt"));
        let is_writing = std::env::var_os(WRITE).is_some();
        let kept = if is_writing { Vec::new() } else { read(&path).1 };
        Self { path, package: package.to_owned(), kept, made: Vec::new(), is_writing }
    }

    /// A value in a form of our own; what the file holds under this name.
    pub(crate) fn bytes(&mut self, name: &str, made: impl Into<Bytes>) -> Bytes {
        let made = made.into();
        assert!(!name.contains(' ') && self.made.iter().all(|(other, _)| other != name), "{name}");
        self.made.push((name.to_owned(), made.clone()));
        let kept = self.kept.iter().find(|(other, _)| other == name);
        kept.map_or(made, |(_, kept)| kept.clone())
    }

    /// A message: what the file holds decodes to the same value. The name is the type's, with
    /// `/VARIANT` where there are several.
    pub(crate) fn message<M: Message + Default + PartialEq + Debug>(
        &mut self,
        name: &str,
        value: &M,
    ) {
        let kept = self.bytes(name, value.encode_to_vec());
        let read = M::decode(kept).unwrap_or_else(|e| panic!("{name} does not decode: {e}"));
        assert_eq!(&read, value, "{name}: the file holds another value");
    }

    /// Compares the whole file. The last of a test: it fails where it writes.
    pub(crate) fn close(self) {
        if self.is_writing {
            let mut text = format!("# {}\n", self.package);
            for (name, bytes) in &self.made {
                writeln!(text, "{name} {}", hex(bytes)).unwrap();
            }
            fs::create_dir_all(folder()).unwrap();
            fs::write(&self.path, text).unwrap();
            let file = self.path.display();
            panic!("{file} is written, which proves nothing: run again without {WRITE}");
        }
        let shown = |(name, bytes): &(String, Bytes)| format!("{name} {}", hex(bytes));
        for (kept, made) in self.kept.iter().zip(&self.made) {
            let (kept, made) = (shown(kept), shown(made));
            let file = self.path.display();
            assert_eq!(made, kept, "{file}: the format changed, which needs a new version");
        }
        let (kept, made) = (self.kept.len(), self.made.len());
        assert_eq!(made, kept, "{}: values that were made and that are kept", self.path.display());
    }
}

/// Lower-case hexadecimal; `-` for nothing.
fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    if text == "-" {
        return Vec::new();
    }
    let digits = text.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

/// An id of 16 bytes, the same one each time.
pub(crate) fn id(of: u8) -> Bytes {
    vec![of; 16].into()
}

/// A digest of 32 bytes, the same one each time.
pub(crate) fn digest(of: u8) -> Bytes {
    vec![of; 32].into()
}
