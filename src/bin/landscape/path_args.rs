//! Paths in flags and configuration files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};

/// Parses a path and expands `~`, which shells do not expand in `--out=~/x`.
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| expand(&path))
}

/// Expands `~` at the beginning of a path.
pub fn expand(path: &Path) -> Result<PathBuf, String> {
    expanded(path, home().as_deref())
}

pub fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| !home.as_os_str().is_empty())
}

fn expanded(path: &Path, home: Option<&Path>) -> Result<PathBuf, String> {
    let mut parts = path.components();
    let first = parts.next().map(|first| first.as_os_str());
    let rest = parts.as_path();
    match first.map(OsStr::as_encoded_bytes) {
        Some(b"~") => match home {
            Some(home) if rest.as_os_str().is_empty() => Ok(home.to_path_buf()),
            Some(home) => Ok(home.join(rest)),
            None => Err("cannot expand `~`: HOME is not set; give the full path".into()),
        },
        Some([b'~', ..]) if !rest.as_os_str().is_empty() => Err(format!(
            "`{}` is not expanded: give the full path, or ./{} for a directory of that name",
            first.unwrap_or_default().display(),
            path.display()
        )),
        _ => Ok(path.to_path_buf()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leading_tilde_is_the_home_directory() {
        let expanded = |path: &str| expanded(Path::new(path), Some(Path::new("/home/me")));
        for (path, expected) in [
            ("~", "/home/me"),
            ("~/runs/1", "/home/me/runs/1"),
            ("./~", "./~"),
            ("runs/~", "runs/~"),
            ("~backup", "~backup"),
        ] {
            assert_eq!(expanded(path).unwrap(), Path::new(expected));
        }
        let error = expanded("~you/runs").unwrap_err();
        assert!(error.starts_with("`~you` is not expanded"), "{error}");
        assert!(super::expanded(Path::new("~/runs"), None).is_err());
    }
}
