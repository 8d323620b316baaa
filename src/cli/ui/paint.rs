//! Colours. Only [`paint`] makes colours, and a colour code in foreign text is shown as an escape.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::OnceLock;

use console::measure_text_width;

use crate::model::visible;

/// A colour or weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Bold.
    Bold,
    /// Less important than its surroundings.
    Dim,
    /// Good.
    Green,
    /// Needs attention.
    Yellow,
    /// Bad.
    Red,
    /// Under way.
    Cyan,
    /// A bad state, in bold.
    Alarm,
    /// A heading.
    Title,
}

impl Paint {
    /// The terminal's code.
    const fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Red => "31",
            Self::Cyan => "36",
            Self::Alarm => "31;1",
            Self::Title => "36;1",
        }
    }
}

/// The prefix of each mark of this process. It is chosen at random, so that foreign text cannot
/// contain it.
fn seal() -> &'static str {
    static SEAL: OnceLock<String> = OnceLock::new();
    SEAL.get_or_init(|| format!("\u{1b}{:016x}", fastrand::u64(..)))
}

/// `text` in this colour, between marks that `shown` recognises.
#[must_use]
pub(crate) fn paint(paint: Paint, text: impl Display) -> String {
    let (seal, code) = (seal(), paint.code());
    format!("{seal}{code}m{text}{seal}0m")
}

/// `text` for a terminal, with hidden characters as escapes, and marks as colours or removed.
#[must_use]
pub(super) fn shown(text: &str, colors: bool) -> String {
    pieces(text, visible::text, |code| match colors {
        true => format!("\u{1b}[{code}m"),
        false => String::new(),
    })
}

/// `text` with its marks, and with `each` applied to the parts between them.
pub(super) fn kept(text: &str, each: fn(&str) -> Cow<'_, str>) -> String {
    pieces(text, each, |code| format!("{}{code}m", seal()))
}

/// The number of columns that `text` takes.
pub(crate) fn width(text: &str) -> usize {
    measure_text_width(&shown(text, false))
}

fn pieces(text: &str, between: fn(&str) -> Cow<'_, str>, mark: impl Fn(&str) -> String) -> String {
    let mut parts = text.split(seal());
    let mut whole = between(parts.next().unwrap_or_default()).into_owned();
    for part in parts {
        match part.split_once('m') {
            Some((code, rest)) => {
                whole.push_str(&mark(code));
                whole.push_str(&between(rest));
            }
            None => whole.push_str(&between(part)),
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_colour_is_shown_where_colours_are_and_takes_no_column() {
        let text = format!("{} b", paint(Paint::Alarm, "a"));
        assert_eq!(shown(&text, true), "\u{1b}[31;1ma\u{1b}[0m b");
        assert_eq!(shown(&text, false), "a b");
        assert_eq!(width(&text), 3);
        assert_eq!(kept(&text, visible::line), text);
    }

    #[test]
    fn a_colour_in_a_text_of_others_is_none() {
        let text = paint(Paint::Green, "\u{1b}[31mred\u{1b}[0m");
        assert_eq!(shown(&text, true), "\u{1b}[32m\\u{1b}[31mred\\u{1b}[0m\u{1b}[0m");
    }

    proptest! {
        #[test]
        fn without_colours_no_control_character_is_shown(given in any::<String>()) {
            let text = format!("{given}{}{given}", paint(Paint::Bold, &given));
            prop_assert!(!shown(&text, false).contains(|c: char| c.is_control() && !"\n\t".contains(c)));
        }
    }
}
