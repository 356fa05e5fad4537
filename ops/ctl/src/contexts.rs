//! Contexts: which cluster, with which credential. `~/.config/dtm/contexts.toml` (mode 0600), or
//! the file that `DTM_CONTEXTS` names. Holds paths, never secrets.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Failure, write_new};

/// Addresses that a context learns of.
const ADDRESSES_MAX: usize = 32;

/// One cluster and how to get in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// gRPC addresses, `host:port`.
    pub address: Vec<String>,
    /// Root certificates (PEM).
    pub ca: PathBuf,
    /// Certificate chain (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its key (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// File with a source key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_key_file: Option<PathBuf>,
    /// Source that this context speaks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// Name of the current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// By name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// Where the file lies.
pub fn path() -> PathBuf {
    if let Some(path) = std::env::var_os("DTM_CONTEXTS") {
        return path.into();
    }
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))
        .unwrap_or_default();
    base.join("dtm/contexts.toml")
}

impl Contexts {
    /// Reads the file; empty where there is none.
    ///
    /// # Errors
    /// [`Failure::Contexts`], [`Failure::File`].
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(Failure::file(path)(error)),
        };
        toml::from_str(&text).map_err(|e| Failure::Contexts {
            path: path.display().to_string(),
            line: 1 + text[..e.span().map_or(0, |span| span.start)].matches('\n').count(),
            what: e.message().to_owned(),
        })
    }

    /// Replaces the file as a whole.
    ///
    /// # Errors
    /// [`Failure::File`].
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(Failure::file(folder))?;
        let text = toml::to_string(self).expect("plain fields become TOML");
        let next = path.with_extension(format!("toml.{}", std::process::id()));
        write_new(&next, text.as_bytes(), 0o600).map_err(Failure::file(&next))?;
        fs::rename(&next, path).map_err(Failure::file(path))
    }

    /// Adds or replaces a context; the first one becomes current. Paths are made absolute.
    ///
    /// # Errors
    /// [`Failure::File`] where a named file is not there.
    pub fn add(&mut self, name: &str, mut context: Context) -> Result<(), Failure> {
        let files = [
            Some(&mut context.ca),
            context.certificate.as_mut(),
            context.key.as_mut(),
            context.source_key_file.as_mut(),
        ];
        for file in files.into_iter().flatten() {
            *file = fs::canonicalize(&*file).map_err(Failure::file(file))?;
        }
        self.contexts.insert(name.to_owned(), context);
        self.current.get_or_insert_with(|| name.to_owned());
        Ok(())
    }

    /// Adds a context under this name, or the first free `NAME-2`, `NAME-3` … where another one has
    /// it, and makes it the current one; its name.
    ///
    /// # Errors
    /// [`Failure::File`] where a named file is not there.
    pub fn add_beside(&mut self, name: &str, context: Context) -> Result<String, Failure> {
        let numbered = (2_u32..).map(|number| format!("{name}-{number}"));
        let mut names = std::iter::once(name.to_owned()).chain(numbered);
        let free = names.find(|name| !self.contexts.contains_key(name));
        let free = free.expect("there are more numbers than contexts");
        self.add(&free, context)?;
        self.current = Some(free.clone());
        Ok(free)
    }

    /// Forgets a context; none is current where it was.
    ///
    /// # Errors
    /// [`Failure::Usage`] where there is none.
    pub fn remove(&mut self, name: &str) -> Result<(), Failure> {
        self.pick(Some(name))?;
        self.contexts.remove(name);
        self.current.take_if(|current| current == name);
        Ok(())
    }

    /// Adds addresses that a context does not have yet, behind its own; whether there were any.
    pub fn learn(&mut self, name: Option<&str>, addresses: &[String]) -> bool {
        let Some(name) = name.or(self.current.as_deref()) else { return false };
        let Some(context) = self.contexts.get_mut(name) else { return false };
        let held = context.address.len();
        for address in addresses {
            if context.address.len() < ADDRESSES_MAX && !context.address.contains(address) {
                context.address.push(address.clone());
            }
        }
        context.address.len() > held
    }

    /// The named context, else the current one.
    ///
    /// # Errors
    /// [`Failure::Usage`] where there is none.
    pub fn pick(&self, name: Option<&str>) -> Result<&Context, Failure> {
        let Some(name) = name.or(self.current.as_deref()) else {
            let names: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            return Err(match names.as_slice() {
                [] => Failure::usage("cli.no_context", &[]),
                names => Failure::usage("cli.no_current_context", &[("names", &names.join(", "))]),
            });
        };
        self.contexts
            .get(name)
            .ok_or_else(|| Failure::usage("cli.unknown_context", &[("name", name)]))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn contexts_are_kept_and_picked() {
        let scratch = tempfile::tempdir().expect("a folder");
        let file = scratch.path().join("dtm/contexts.toml");
        let ca = scratch.path().join("ca.pem");
        fs::write(&ca, "x").expect("written");
        let mut contexts = Contexts::load(&file).expect("none yet");
        assert!(contexts.pick(None).is_err());
        let context = Context { address: vec!["a:1".into()], ca, ..Context::default() };
        contexts.add("one", context.clone()).expect("added");
        contexts.add("two", Context { address: vec!["b:2".into()], ..context }).expect("added");
        contexts.save(&file).expect("saved");
        contexts.save(&file).expect("saved again");
        let again = Contexts::load(&file).expect("reads");
        assert_eq!(again, contexts);
        assert_eq!(again.pick(None).expect("current").address, ["a:1"]);
        assert_eq!(again.pick(Some("two")).expect("named").address, ["b:2"]);
        assert!(again.pick(Some("three")).is_err());
        assert_eq!(fs::metadata(&file).expect("is there").permissions().mode() & 0o777, 0o600);
        fs::write(&file, "[contexts.a]\nadress = []\n").expect("written");
        assert!(matches!(Contexts::load(&file), Err(Failure::Contexts { .. })));
    }

    #[test]
    fn a_second_cluster_of_one_name_takes_nothing_from_the_first() {
        let scratch = tempfile::tempdir().expect("a folder");
        let ca = scratch.path().join("ca.pem");
        fs::write(&ca, "x").expect("written");
        let at = |address: &str| Context {
            address: vec![address.into()],
            ca: ca.clone(),
            ..Context::default()
        };
        let mut all = Contexts::default();
        assert_eq!(all.add_beside("dtm", at("a:1")).expect("added"), "dtm");
        assert_eq!(all.add_beside("dtm", at("b:1")).expect("added"), "dtm-2");
        assert_eq!(all.add_beside("dtm", at("c:1")).expect("added"), "dtm-3");
        assert_eq!(all.pick(Some("dtm")).expect("kept").address, ["a:1"]);
        assert_eq!(all.pick(None).expect("current").address, ["c:1"]);

        assert!(all.learn(None, &["c:1".into(), "d:1".into()]));
        assert!(!all.learn(None, &["d:1".into()]), "nothing new");
        assert_eq!(all.pick(None).expect("current").address, ["c:1", "d:1"]);

        all.remove("dtm").expect("removed");
        assert_eq!(all.current.as_deref(), Some("dtm-3"));
        all.remove("dtm-3").expect("removed");
        let told = all.pick(None).expect_err("none is current").tell(dtm_types::text::Lang::En);
        assert!(told.contains("there are dtm-2") && told.contains("context use"), "{told}");
        assert!(all.current.is_none() && all.remove("dtm-3").is_err());
        assert!(!all.learn(None, &["e:1".into()]));
    }
}
