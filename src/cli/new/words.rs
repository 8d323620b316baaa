//! What names of columns suggest. A name is judged by its words: `createdAt` and `created_at` are
//! `created` and `at`.

/// Longest name of a rollup or measure, in bytes.
pub(super) const NAME_MAX: usize = 48;

/// Times at which something happened, once.
const HAPPENED: &[&str] = &[
    "added",
    "captured",
    "clicked",
    "created",
    "creation",
    "event",
    "happened",
    "inserted",
    "logged",
    "measured",
    "occurred",
    "ordered",
    "paid",
    "placed",
    "published",
    "purchased",
    "received",
    "recorded",
    "registered",
    "sent",
    "started",
    "time",
    "timestamp",
    "ts",
    "viewed",
    "visited",
];

/// Times that move while a row lives. A row would move from slice to slice.
const MOVES: &[&str] = &["changed", "modified", "refreshed", "synced", "touched", "updated"];

/// Times of another meaning than when the row appeared.
const PLANNED: &[&str] = &[
    "archived",
    "birth",
    "birthday",
    "canceled",
    "cancelled",
    "deadline",
    "deleted",
    "dob",
    "due",
    "end",
    "ended",
    "ends",
    "expiration",
    "expired",
    "expires",
    "expiry",
    "finished",
    "last",
    "next",
    "reset",
    "scheduled",
    "trial",
    "until",
    "valid",
];

/// Last words of integers that count time.
const COUNTED_TIME: &[&str] =
    &["at", "date", "epoch", "millis", "ms", "on", "sec", "secs", "time", "timestamp", "ts"];

/// Columns by which people group.
const GROUPS: &[&str] = &[
    "action", "category", "channel", "country", "currency", "event", "kind", "language", "level",
    "locale", "method", "outcome", "plan", "platform", "provider", "reason", "region", "result",
    "role", "source", "state", "status", "tier", "topic", "type",
];

/// Columns with personal data or secrets, which a table of statistics does better without.
const PRIVATE: &[&str] = &[
    "address",
    "birthday",
    "body",
    "comment",
    "email",
    "firstname",
    "fullname",
    "hash",
    "ip",
    "lastname",
    "login",
    "mail",
    "message",
    "mobile",
    "password",
    "phone",
    "secret",
    "street",
    "surname",
    "token",
    "url",
    "username",
];

/// Words before `name` with which it is the name of a person.
const PERSONS: &[&str] = &[
    "contact", "customer", "display", "family", "first", "full", "given", "last", "middle", "nick",
    "user",
];

/// Numbers that add up.
const SUMS: &[&str] = &[
    "amount", "bytes", "cents", "cost", "count", "credits", "discount", "fee", "gross", "net",
    "points", "qty", "quantity", "revenue", "size", "subtotal", "tax", "tip", "tokens", "total",
    "units", "value",
];

/// Numbers whose mean says more than their sum.
const MEANS: &[&str] = &[
    "age",
    "duration",
    "elapsed",
    "latency",
    "ms",
    "percent",
    "price",
    "rate",
    "rating",
    "ratio",
    "score",
    "seconds",
    "temperature",
];

/// Numbers that neither add up nor have a mean.
const LABELS: &[&str] = &[
    "code",
    "day",
    "height",
    "hour",
    "index",
    "lat",
    "latitude",
    "lng",
    "lon",
    "longitude",
    "month",
    "number",
    "order",
    "pid",
    "port",
    "position",
    "seed",
    "sort",
    "version",
    "width",
    "year",
    "zip",
];

/// Words of SQL that a column's name would need quotes for, as far as tables are called so.
const SQL: &[&str] = &[
    "analyse",
    "array",
    "case",
    "check",
    "column",
    "constraint",
    "default",
    "end",
    "grant",
    "group",
    "limit",
    "offset",
    "order",
    "placing",
    "reference",
    "session_user",
    "table",
    "user",
    "window",
];

/// The meaning of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Sum,
    Mean,
    Label,
    Unknown,
}

/// The words of a name, in lower case.
pub(super) fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_small = false;
    for letter in name.chars() {
        if !letter.is_alphanumeric() || letter.is_uppercase() && was_small {
            words.push(String::new());
        }
        if letter.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(letter.to_lowercase());
        }
        was_small = letter.is_lowercase() || letter.is_numeric();
    }
    words.retain(|word| !word.is_empty());
    words
}

fn has_one_of(words: &[String], known: &[&str]) -> bool {
    words.iter().any(|word| known.contains(&word.as_str()))
}

/// How well a column of this name places a row in time, from 1 to 10.
pub(super) fn time_weight(name: &str) -> u8 {
    let words = words(name);
    match words.as_slice() {
        [only] if matches!(only.as_str(), "at" | "date" | "day" | "when") => 9,
        _ if has_one_of(&words, PLANNED) => 1,
        _ if has_one_of(&words, MOVES) => 2,
        _ if has_one_of(&words, HAPPENED) => 10,
        _ => 5,
    }
}

/// Whether an integer of this name may count time.
pub(super) fn is_counted_time(name: &str) -> bool {
    words(name).last().is_some_and(|last| COUNTED_TIME.contains(&last.as_str()))
}

/// Whether an integer of this name counts milliseconds, where its values do not show it.
pub(super) fn is_milliseconds(name: &str) -> bool {
    words(name).last().is_some_and(|last| last == "ms" || last == "millis")
}

/// Whether a column of this name tells things apart.
pub(super) fn is_key(name: &str) -> bool {
    let words = words(name);
    words.last().is_some_and(|last| matches!(last.as_str(), "id" | "uuid" | "guid"))
}

pub(super) fn is_group(name: &str) -> bool {
    has_one_of(&words(name), GROUPS)
}

/// Whether a column of this name may hold personal data or secrets. An event's name does not.
pub(super) fn is_private(name: &str) -> bool {
    let words = words(name);
    let is_name = words.iter().any(|word| word == "name" || word == "names");
    has_one_of(&words, PRIVATE) || is_name && has_one_of(&words, PERSONS)
}

pub(super) fn number(name: &str) -> Number {
    let words = words(name);
    if is_key(name) || has_one_of(&words, LABELS) {
        Number::Label
    } else if has_one_of(&words, MEANS) {
        Number::Mean
    } else if has_one_of(&words, SUMS) {
        Number::Sum
    } else {
        Number::Unknown
    }
}

/// A table's name as that of a count. Prisma calls a table of orders `Order`, which is a word of SQL that
/// readers would have to quote.
pub(super) fn counted(name: &str) -> String {
    let is_sql = SQL.contains(&name.to_lowercase().as_str());
    if is_sql { format!("{name}s") } else { name.to_owned() }
}

/// `name` as rollups and measures are called: `OrderItems` is `order_items`. It begins with a letter
/// and has at most `bytes_max` bytes.
pub(super) fn plain(name: &str, bytes_max: usize) -> String {
    let words = words(name);
    let ascii = words.iter().map(|word| word.chars().filter(char::is_ascii).collect::<String>());
    let ascii: Vec<String> = ascii.filter(|word| !word.is_empty()).collect();
    let mut plain = ascii.join("_");
    if !plain.starts_with(|first: char| first.is_ascii_lowercase()) {
        plain.insert_str(0, "rows_");
    }
    plain.truncate(bytes_max);
    plain.trim_end_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_into_words_in_every_style() {
        for (name, expected) in [
            ("createdAt", "created at"),
            ("created_at", "created at"),
            ("OrderItems", "order items"),
            ("Bestell-Größe 2", "bestell größe 2"),
            ("userID", "user id"),
            ("", ""),
        ] {
            assert_eq!(words(name).join(" "), expected);
        }
    }

    #[test]
    fn names_suggest_what_columns_hold() {
        assert!(time_weight("createdAt") > time_weight("settled"));
        assert!(time_weight("settled") > time_weight("updated_at"));
        assert!(time_weight("updated_at") > time_weight("expires_at"));
        assert!(is_counted_time("at_ms") && is_counted_time("ts") && !is_counted_time("event_id"));
        assert!(is_key("customerId") && is_key("id") && !is_key("paid"));
        assert!(is_group("payment_method") && is_private("customer_email"));
        assert!(is_private("firstName") && is_private("user_name") && !is_private("event_name"));
        assert_eq!(number("total_cents"), Number::Sum);
        assert_eq!(number("duration_ms"), Number::Mean);
        assert_eq!(number("zip_code"), Number::Label);
    }

    #[test]
    fn a_plain_name_can_name_a_table() {
        assert_eq!([counted("Order"), counted("Visit")], ["Orders", "Visit"]);
        assert_eq!(plain("OrderItems", NAME_MAX), "order_items");
        assert_eq!(plain("Größen", NAME_MAX), "gren");
        assert_eq!(plain("2024 sales", NAME_MAX), "rows_2024_sales");
        assert_eq!(plain("日本", NAME_MAX), "rows");
        assert_eq!(plain(&"a".repeat(60), 10), "a".repeat(10));
    }
}
