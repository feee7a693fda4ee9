//! Values made of other values: lists, tuples, options, maps.
//!
//! Cells compile the implementations for their own types, so these only call functions that the crate has compiled.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

use super::table::escape;
use super::{Bundle, Show};
use crate::error::{Error, Result};

/// Longest list whose items are all shown.
pub(super) const MAX_ITEMS: usize = 10;

/// Number of items at each end of a longer list.
pub(super) const ENDS: usize = 3;

/// Longest line that holds a whole list.
const LINE: usize = 100;

/// `[a, b, c]`, or both ends of a long list and its length.
pub(super) fn abbreviated<T>(
    items: &[T],
    text: impl Fn(&T) -> String,
    summary: impl Fn(&[T]) -> String,
) -> String {
    if items.len() <= MAX_ITEMS {
        let all: Vec<_> = items.iter().map(text).collect();
        return format!("[{}]", all.join(", "));
    }
    let (head, tail) = (&items[..ENDS], &items[items.len() - ENDS..]);
    let join = |items: &[T]| items.iter().map(&text).collect::<Vec<_>>().join(", ");
    format!(
        "[{}, …, {}] ({} values{})",
        join(head),
        join(tail),
        items.len(),
        summary(items)
    )
}

/// Items on one line, or else one per line; both ends of a long list.
pub(super) fn list<T: Show>(items: &[T], brackets: [char; 2]) -> Result<String> {
    list_of(items.len(), &|i| items[i].inline(), brackets)
}

fn list_of(
    count: usize,
    inline: &dyn Fn(usize) -> Result<String>,
    [open, close]: [char; 2],
) -> Result<String> {
    let inline = |range: Range<usize>| range.map(inline).collect::<Result<Vec<_>>>();
    let (parts, size) = if count <= MAX_ITEMS {
        (inline(0..count)?, String::new())
    } else {
        let mut parts = inline(0..ENDS)?;
        parts.push("…".into());
        parts.extend(inline(count - ENDS..count)?);
        (parts, format!(" ({count} values)"))
    };
    let length: usize = parts.iter().map(|part| part.chars().count() + 2).sum();
    let separator = if length <= LINE { ", " } else { ",\n " };
    Ok(format!("{open}{}{close}{size}", parts.join(separator)))
}

/// One line of text and nothing else.
fn is_line(bundle: &Bundle) -> bool {
    matches!(&bundle.parts[..], [("text/plain", text)] if !text.contains('\n'))
}

impl<T: Show> Show for [T] {
    fn bundle(&self) -> Result<Bundle> {
        T::bundle_list(self)
    }

    fn inline(&self) -> Result<String> {
        self.bundle().map(|bundle| inline_list(&bundle, self.len()))
    }
}

fn inline_list(bundle: &Bundle, count: usize) -> String {
    match bundle.get("text/plain") {
        Some(text) if !text.contains('\n') => text.to_owned(),
        _ => format!("[{count} values]"),
    }
}

macro_rules! show_as {
    ($([$($generics:tt)*] $type:ty => $method:ident),+ $(,)?) => {
        $(impl<$($generics)*> Show for $type {
            fn bundle(&self) -> Result<Bundle> {
                self.$method().bundle()
            }

            fn inline(&self) -> Result<String> {
                self.$method().inline()
            }
        })+
    };
}
show_as!(
    [T: Show] Vec<T> => as_slice,
    [T: Show, const N: usize] [T; N] => as_slice,
);

macro_rules! show_pointee {
    ($($type:ty),+) => {
        $(impl<T: Show + ?Sized> Show for $type {
            fn bundle(&self) -> Result<Bundle> {
                (**self).bundle()
            }

            fn inline(&self) -> Result<String> {
                (**self).inline()
            }
        })+
    };
}
show_pointee!(&T, &mut T, Box<T>, Arc<T>);

impl<T: Show> Show for Option<T> {
    fn bundle(&self) -> Result<Bundle> {
        option(self.as_ref().map(|value| value as &dyn Show))
    }

    fn inline(&self) -> Result<String> {
        inline_option(self.as_ref().map(|value| value as &dyn Show))
    }
}

fn option(value: Option<&dyn Show>) -> Result<Bundle> {
    match value.map(Show::bundle).transpose()? {
        Some(bundle) if !is_line(&bundle) => Ok(bundle),
        _ => Ok(Bundle::text(inline_option(value)?)),
    }
}

fn inline_option(value: Option<&dyn Show>) -> Result<String> {
    Ok(match value {
        Some(value) => format!("Some({})", value.inline()?),
        None => "None".to_owned(),
    })
}

/// An error is displayed as `?` displays it.
impl<T: Show, E: Display> Show for std::result::Result<T, E> {
    fn bundle(&self) -> Result<Bundle> {
        match self {
            Ok(value) => value.bundle(),
            Err(error) => Err(Error::invalid(error.to_string())),
        }
    }

    fn inline(&self) -> Result<String> {
        Ok(match self {
            Ok(value) => format!("Ok({})", value.inline()?),
            Err(error) => format!("Err({error})"),
        })
    }
}

/// Bundles one below the other.
fn stacked(bundles: &[Bundle]) -> Bundle {
    let text = |bundle: &Bundle| bundle.get("text/plain").unwrap_or_default().to_owned();
    let html = |bundle: &Bundle| match bundle.get("text/html") {
        Some(html) => html.to_owned(),
        None => format!("<pre>{}</pre>", escape(&text(bundle))),
    };
    let texts: Vec<_> = bundles.iter().map(text).collect();
    let stack = Bundle::text(texts.join("\n\n"));
    match bundles
        .iter()
        .any(|bundle| bundle.get("text/html").is_some())
    {
        true => stack.with(
            "text/html",
            bundles.iter().map(html).collect::<Vec<_>>().join("\n"),
        ),
        false => stack,
    }
}

macro_rules! tuples {
    ($($($T:ident $i:tt),+;)+) => {
        $(impl<$($T: Show),+> Show for ($($T,)+) {
            fn bundle(&self) -> Result<Bundle> {
                tuple(&[$(&self.$i),+])
            }

            fn inline(&self) -> Result<String> {
                inline_tuple(&[$(&self.$i),+])
            }
        })+
    };
}
tuples!(
    A 0, B 1;
    A 0, B 1, C 2;
    A 0, B 1, C 2, D 3;
    A 0, B 1, C 2, D 3, E 4;
    A 0, B 1, C 2, D 3, E 4, F 5;
);

/// A tuple on one line if each part fits on one; else the parts one below the other.
fn tuple(parts: &[&dyn Show]) -> Result<Bundle> {
    let bundles: Vec<_> = parts
        .iter()
        .map(|part| part.bundle())
        .collect::<Result<_>>()?;
    match bundles.iter().all(is_line) {
        true => Ok(Bundle::text(inline_tuple(parts)?)),
        false => Ok(stacked(&bundles)),
    }
}

fn inline_tuple(parts: &[&dyn Show]) -> Result<String> {
    let parts: Vec<_> = parts
        .iter()
        .map(|part| part.inline())
        .collect::<Result<_>>()?;
    Ok(format!("({})", parts.join(", ")))
}

struct Entry<'a, K, V>(&'a K, &'a V);

impl<K: Show, V: Show> Show for Entry<'_, K, V> {
    fn bundle(&self) -> Result<Bundle> {
        Ok(Bundle::text(self.inline()?))
    }

    fn inline(&self) -> Result<String> {
        Ok(format!("{}: {}", self.0.inline()?, self.1.inline()?))
    }
}

impl<K: Show, V: Show> Show for BTreeMap<K, V> {
    fn bundle(&self) -> Result<Bundle> {
        let entries: Vec<_> = self.iter().map(|(k, v)| Entry(k, v)).collect();
        Ok(Bundle::text(list(&entries, ['{', '}'])?))
    }
}

/// Sorted by key.
impl<K: Show + Ord, V: Show, S> Show for HashMap<K, V, S> {
    fn bundle(&self) -> Result<Bundle> {
        self.iter().collect::<BTreeMap<_, _>>().bundle()
    }
}

/// Longest text that is shown whole.
const MAX_CHARS: usize = 10_000;

/// Longest text in a list or tuple.
const MAX_INLINE_CHARS: usize = 60;

fn start(text: &str, length: usize) -> Option<&str> {
    text.char_indices().nth(length).map(|(end, _)| &text[..end])
}

/// The start of a text that is too long to stand within another value.
pub(super) fn cut(text: &str) -> Option<&str> {
    start(text, MAX_INLINE_CHARS)
}

impl Show for str {
    fn bundle(&self) -> Result<Bundle> {
        Ok(Bundle::text(match start(self, MAX_CHARS) {
            None => self.to_owned(),
            Some(start) => format!("{start}… ({} characters)", self.chars().count()),
        }))
    }

    fn inline(&self) -> Result<String> {
        Ok(match cut(self) {
            None => format!("{self:?}"),
            Some(start) => format!("{:?}", format!("{start}…")),
        })
    }
}
show_as!([] String => as_str);

impl Show for char {
    fn bundle(&self) -> Result<Bundle> {
        Ok(Bundle::text(self.to_string()))
    }

    fn inline(&self) -> Result<String> {
        Ok(format!("{self:?}"))
    }
}

/// A cell that ends in a statement displays nothing.
impl Show for () {
    fn bundle(&self) -> Result<Bundle> {
        Ok(Bundle::default())
    }

    fn inline(&self) -> Result<String> {
        Ok("()".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T: Show>(value: T) -> String {
        let bundle = value.bundle().unwrap();
        assert!(bundle.get("text/html").is_none());
        bundle.get("text/plain").unwrap().to_owned()
    }

    struct Rows(&'static str);

    impl Show for Rows {
        fn bundle(&self) -> Result<Bundle> {
            Ok(Bundle::text(format!("{}\n{}", self.0, self.0)).with("text/html", "<hr>"))
        }
    }

    #[test]
    fn strings_stand_in_quotes_only_within_other_values() {
        assert_eq!(text("a\nb"), "a\nb");
        assert_eq!(text((1, "a")), r#"(1, "a")"#);
        assert_eq!(text(vec![String::new(), "\"".into()]), r#"["", "\""]"#);
        assert_eq!(text(Some('x')), "Some('x')");
    }

    #[test]
    fn long_strings_are_cut() {
        let long = "é".repeat(100_000);
        assert_eq!(text("é".repeat(10_000)), "é".repeat(10_000));
        assert_eq!(
            text(&long[..]),
            "é".repeat(10_000) + "… (100000 characters)"
        );
        let inline = format!("\"{}…\"", "é".repeat(60));
        assert_eq!(text((long.clone(), 1)), format!("({inline}, 1)"));
        assert_eq!(text(["é".repeat(60)]), format!("[\"{}\"]", "é".repeat(60)));
        assert_eq!(
            text([long.clone(), long]),
            format!("[{inline},\n {inline}]")
        );
    }

    #[test]
    fn long_lists_show_their_ends() {
        let names: Vec<String> = (0..100_000).map(|i| i.to_string()).collect();
        assert_eq!(
            text(names),
            r#"["0", "1", "2", …, "99997", "99998", "99999"] (100000 values)"#
        );
        assert_eq!(text(Vec::<&str>::new()), "[]");
    }

    #[test]
    fn vectors_of_vectors() {
        assert_eq!(text(vec![vec![0.5], vec![]]), "[[0.5], []]");
        let row: Vec<f64> = (0..100).map(f64::from).collect();
        let line = "[0.0, 1.0, 2.0, …, 97.0, 98.0, 99.0] (100 values, norm 573.018)";
        assert_eq!(text(vec![row.clone(); 2]), format!("[{line},\n {line}]"));
        let rows = text(vec![row.clone(); 50]);
        assert_eq!(rows.lines().count(), 7);
        assert!(rows.ends_with("] (50 values)"));
        assert_eq!(text(vec![vec![row; 50]]), "[[50 values]]");
    }

    #[test]
    fn options_and_tuples_show_their_parts() {
        assert_eq!(text(Some(vec![1u8])), "Some([1])");
        assert_eq!(text(None::<f64>), "None");
        assert_eq!(text((0.1 + 0.2, Some(1.0f32))), "(0.3, Some(1.0))");
        assert_eq!(
            text(vec![(1, -0.0), (2, f64::NAN)]),
            "[(1, -0.0), (2, NaN)]"
        );
        assert_eq!(text([Some(0.5), None]), "[Some(0.5), None]");
    }

    #[test]
    fn parts_of_several_lines_stand_one_below_the_other() {
        let bundle = (Rows("a"), "<b>", 0.5).bundle().unwrap();
        assert_eq!(bundle.get("text/plain"), Some("a\na\n\n<b>\n\n0.5"));
        assert_eq!(
            bundle.get("text/html"),
            Some("<hr>\n<pre>&lt;b&gt;</pre>\n<pre>0.5</pre>")
        );
        assert_eq!(
            Some(Rows("a")).bundle().unwrap(),
            Rows("a").bundle().unwrap()
        );
        assert_eq!(text([Rows("a"), Rows("b")]), "[a …, b …]");
    }

    #[test]
    fn results_show_their_value_or_fail() {
        let good: std::result::Result<f64, String> = Ok(0.5);
        let bad: std::result::Result<f64, String> = Err("no".into());
        assert_eq!(text(&good), "0.5");
        assert!(bad.bundle().unwrap_err().to_string().contains("no"));
        assert_eq!(text([good, bad]), "[Ok(0.5), Err(no)]");
    }

    #[test]
    fn maps_are_sorted() {
        let map: HashMap<_, _> = [("b", vec![1]), ("a", vec![])].into();
        assert_eq!(text(map), r#"{"a": [], "b": [1]}"#);
        let map: BTreeMap<_, _> = (0..100_000).map(|i| (i, 0.5)).collect();
        assert_eq!(
            text(map),
            "{0: 0.5, 1: 0.5, 2: 0.5, …, 99997: 0.5, 99998: 0.5, 99999: 0.5} (100000 values)"
        );
    }
}
