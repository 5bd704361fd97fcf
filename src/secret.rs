//! What a cluster's nodes share so that nobody else speaks among them: one secret of 32
//! bytes, or two while it is changed.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};

use crate::error::Error;

/// How long a secret is.
const SECRET_BYTES: usize = 32;
/// No file of secrets is larger; what is, is another file.
const FILE_BYTES_LIMIT: u64 = 4_096;

/// What to do about a secret that is none.
pub(crate) const REMEDY: &str = "write 32 bytes as 64 hexadecimal digits or 44 characters of \
                                 base64, as `head -c 32 /dev/urandom | base64` makes them";

/// The text, without anything in it that may be a secret or most of one.
pub(crate) fn hide(text: &str) -> String {
    /// Fewer digits than that give nothing away.
    const MOST: usize = 39;
    let could_be = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let length = rest.find(|c| !could_be(c)).unwrap_or(rest.len());
        let other = rest[length..].find(could_be).map_or(rest.len(), |at| length + at);
        shown.push_str(if length > MOST { "(not shown)" } else { &rest[..length] });
        shown.push_str(&rest[length..other]);
        rest = &rest[other..];
    }
    shown
}

/// One secret. Nothing shows it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret([u8; SECRET_BYTES]);

/// One secret or two: the first seals, both open.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secrets(Vec<Secret>);

impl Secret {
    /// The secret behind a text. The error is what is wrong with it, without the text.
    fn parse(text: &str) -> Result<Secret, String> {
        let text = text.as_bytes();
        let bytes = match text.len() {
            64 => HEXLOWER_PERMISSIVE.decode(text),
            44 => BASE64.decode(text),
            length => return Err(format!("{length} characters, where 64 or 44 should be")),
        };
        let bytes = bytes.map_err(|error| match text.len() {
            64 => format!("character {} is no hexadecimal digit", error.position + 1),
            _ => format!("character {} is not base64", error.position + 1),
        })?;
        match <[u8; SECRET_BYTES]>::try_from(bytes) {
            Ok(bytes) if bytes == [bytes[0]; SECRET_BYTES] => {
                Err("the same byte over and over is no secret".to_string())
            }
            Ok(bytes) => Ok(Secret(bytes)),
            Err(bytes) => Err(format!("{} bytes, where 32 should be", bytes.len())),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }
}

impl Secrets {
    /// The secrets behind some texts. The error is what is wrong with them, and shows none.
    pub(crate) fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Secrets, String> {
        let mut secrets = Vec::new();
        for (number, text) in texts.into_iter().enumerate() {
            let secret = Secret::parse(text)
                .map_err(|problem| format!("secret {}: {problem}", number + 1))?;
            if secrets.contains(&secret) {
                return Err("the same secret stands there twice".to_string());
            }
            secrets.push(secret);
        }
        match secrets.len() {
            0 => Err("there is no secret".to_string()),
            1 | 2 => Ok(Secrets(secrets)),
            many => Err(format!("{many} secrets, where one or two should be")),
        }
    }

    /// The secrets of a file: one on a line; what begins with # and empty lines say nothing.
    /// A file that others may read is refused.
    pub(crate) fn load(path: &Path) -> Result<Secrets, Error> {
        let io = |source| Error::Io {
            doing: format!("read the secret in {:?}", path.display().to_string()),
            source,
        };
        let wrong = |problem: String, remedy: &str| {
            Error::config("secret_file", format!("{}: {problem}", path.display()), remedy)
        };
        // Before it is opened, which with a pipe would wait for its writer.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(wrong("not a file".to_string(), REMEDY));
        }
        let file = File::open(path).map_err(io)?;
        // Of the file that is open, whatever stands under its name by now.
        check_readers(&file.metadata().map_err(io)?).map_err(|(what, how)| wrong(what, &how))?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_LIMIT + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > FILE_BYTES_LIMIT {
            return Err(wrong(format!("larger than {FILE_BYTES_LIMIT} bytes"), REMEDY));
        }
        let text = str::from_utf8(&bytes).map_err(|_| wrong("not a text".to_string(), REMEDY))?;
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        Secrets::parse(lines).map_err(|problem| wrong(problem, REMEDY))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Secret> {
        self.0.iter()
    }
}

/// What is wrong with who may read a file, and what to do about it.
#[cfg(unix)]
fn check_readers(about: &std::fs::Metadata) -> Result<(), (String, String)> {
    use std::os::unix::fs::PermissionsExt;

    let mode = about.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let problem = format!("others than its owner may read or write it (mode {mode:04o})");
        return Err((problem, "make it its owner's alone: chmod 600".to_string()));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_readers(_about: &std::fs::Metadata) -> Result<(), (String, String)> {
    Ok(())
}

/// How many, and nothing of them.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of them", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const BASE64: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn a_secret_is_the_same_in_both_spellings() {
        let expected: Vec<u8> = (0..32).collect();
        for text in [HEX, &HEX.to_uppercase(), BASE64] {
            assert_eq!(Secret::parse(text).map(|secret| secret.0.to_vec()), Ok(expected.clone()));
        }
    }

    #[test]
    fn what_is_no_secret_is_named_and_not_shown() {
        let problems = [
            (String::new(), "0 characters"),
            (HEX[1..].to_string(), "63 characters"),
            (HEX.replace('7', "g"), "character 16 is no hexadecimal digit"),
            (BASE64.replace('E', "~"), "character 3 is not base64"),
            ("ab".repeat(32), "the same byte"),
        ];
        for (text, problem) in problems {
            let error = Secrets::parse([text.as_str()]).expect_err("no secret");
            assert!(error.contains(problem), "{error}");
            assert!(text.is_empty() || !error.contains(&text[..8]), "{error}");
        }
        assert!(Secrets::parse([HEX, BASE64]).expect_err("twice").contains("twice"));
        assert!(Secrets::parse([]).expect_err("none").contains("no secret"));
        let others = ["1", "2", "3"].map(|digit| HEX.replace("1f", &format!("1{digit}")));
        let many = Secrets::parse(others.iter().map(String::as_str)).expect_err("three");
        assert!(many.contains("3 secrets"), "{many}");
        // Neither as it is written nor as a list of numbers.
        let shown = format!("{:?}", Secrets::parse([HEX]));
        assert!(!shown.contains("0001") && !shown.contains("1, 2"), "{shown}");
    }

    #[test]
    fn what_may_be_a_secret_is_not_shown_in_any_text() {
        let hidden = hide(&format!("{{\"a\": \"{HEX}\", \"b\": [\"{BASE64}\", 17]}}"));
        assert_eq!(hidden, "{\"a\": \"(not shown)\", \"b\": [\"(not shown)\", 17]}");
        for text in ["", "ä", "127.0.0.1", "a/path/of/several names", &HEX[..39]] {
            assert_eq!(hide(text), text);
        }
    }
}
