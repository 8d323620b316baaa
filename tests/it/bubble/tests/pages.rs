//! Pages, offsets, orders and the end of a search.

use std::collections::BTreeSet;

use super::super::fake::Author;
use super::*;

/// By Created Date alone.
const BY_DATE: (&str, &str) = ("sort_field", "Created Date");

/// By Created Date, then by id.
const BY_ID_TOO: (&str, &str) =
    ("additional_sort_fields", r#"[{"sort_field": "_id", "descending": false}]"#);

#[test]
fn a_page_says_what_comes_before_and_after_it() {
    let fake = shop_with(250);
    let page = orders(&fake, &[BY_DATE, ("cursor", "100"), ("limit", "60")]);
    assert_eq!((page.cursor, page.count, page.remaining), (100, 60, Some(90)));
    assert_eq!(page.rows.len(), 60);
    let last = orders(&fake, &[BY_DATE, ("cursor", "240")]);
    assert_eq!((last.count, last.remaining), (10, Some(0)));
    let past = orders(&fake, &[BY_DATE, ("cursor", "251")]);
    assert_eq!((past.cursor, past.count, past.remaining), (251, 0, Some(0)));
}

#[test]
fn a_limit_above_a_hundred_is_taken_for_a_hundred() {
    let fake = shop_with(130);
    let page = orders(&fake, &[("limit", "500")]);
    assert_eq!((page.count, page.remaining), (100, Some(30)));
}

#[test]
fn what_remains_can_be_left_out() {
    let fake = shop_with(3);
    let page = orders(&fake, &[("exclude_remaining", "true"), ("limit", "2")]);
    assert_eq!((page.count, page.remaining), (2, None));
    assert_eq!(orders(&fake, &[("exclude_remaining", "false")]).remaining, Some(0));
}

#[test]
fn ties_change_their_order_between_requests_unless_the_id_decides() {
    let fake = shop();
    let made = fake.app().live().bulk_create("order", 150, &New::at(ago(5)));
    let all = |more: &[(&str, &str)]| -> Vec<String> {
        let page = |cursor| orders(&fake, &[&[BY_DATE, ("cursor", cursor)], more].concat()).ids();
        [page("0"), page("100")].concat()
    };
    let (once, again) = (all(&[]), all(&[]));
    assert_ne!(once, again);
    let lost = made.len() - once.iter().collect::<BTreeSet<_>>().len();
    assert!(lost > 0, "two pages of ties hold each once");
    let mut sorted = made.clone();
    sorted.sort();
    assert_eq!(all(&[BY_ID_TOO]), sorted);
    let descending = orders(&fake, &[BY_DATE, ("descending", "true"), BY_ID_TOO]);
    assert_eq!(descending.ids(), sorted[..100]);
}

#[test]
fn a_page_begins_and_ends_within_ties() {
    let fake = shop();
    for tie in 0..20 {
        fake.app().live().bulk_create("order", 7, &New::at(ago(1_000 - tie)));
    }
    for descending in ["false", "true"] {
        let page = |cursor: usize| {
            let cursor = cursor.to_string();
            let by = [BY_DATE, ("descending", descending), BY_ID_TOO];
            orders(&fake, &[&by[..], &[("cursor", &cursor), ("limit", "10")]].concat())
        };
        let pages: Vec<_> = (0..14).map(|number| page(number * 10)).collect();
        let ids: BTreeSet<_> = pages.iter().flat_map(|page| page.ids()).collect();
        assert_eq!(ids.len(), 140, "{descending}");
        let dates: Vec<_> = pages.iter().flat_map(|page| page.column("Created Date")).collect();
        let is_sorted = if descending == "true" {
            dates.is_sorted_by(|a, b| a >= b)
        } else {
            dates.is_sorted()
        };
        assert!(is_sorted, "{descending}");
    }
}

#[test]
fn without_a_sort_field_the_order_is_by_id_and_not_by_creation() {
    let fake = shop();
    let slow = Author::new("1700000000000x000000000000000001", -4_071_000);
    let (first, second) = {
        let mut app = fake.app();
        let first = app.live().create("order", &New::at(ago(2_000)));
        (first, app.live().create("order", &New::at(ago(1_000)).by(&slow)))
    };
    assert!(second.starts_with(&(NOW - 1_000 - 4_071_000).to_string()), "{second}");
    assert_eq!(orders(&fake, &[]).ids(), [second.clone(), first.clone()]);
    assert_eq!(orders(&fake, &[BY_DATE]).ids(), [first, second]);
}

#[test]
fn any_field_sorts_and_empty_values_come_first() {
    let fake = shop();
    let without = fake.app().live().create("order", &New::at(ago(0)));
    let [ten, two] = [10.0, 2.5].map(|it| order(&fake, "Amount", Datum::Number(it)));
    let by = |descending| orders(&fake, &[("sort_field", "Amount"), ("descending", descending)]);
    assert_eq!(by("false").ids(), [without.clone(), two.clone(), ten.clone()]);
    assert_eq!(by("true").ids(), [ten, two, without]);
}

#[test]
fn an_offset_is_computed_at_each_request() {
    let fake = shop_with(200);
    let first = orders(&fake, &[BY_DATE]).ids();
    fake.app().live().delete("order", &first[3]);
    let second = orders(&fake, &[BY_DATE, ("cursor", "100")]);
    assert_eq!((second.count, second.remaining), (99, Some(0)));
    // The thing that stood at offset 100 is in neither page.
    let left = orders(&fake, &[BY_DATE, ("cursor", "99"), ("limit", "1")]).ids();
    assert!(!first.contains(&left[0]) && !second.ids().contains(&left[0]));
}

#[test]
fn past_the_wall_a_page_is_empty_while_things_remain() {
    let fake = shop_with(300);
    assert_eq!(fake.app().wall, 50_000);
    fake.app().wall = 250;
    for by in [&[BY_DATE][..], &[]] {
        let page = |cursor| {
            let page = orders(&fake, &[&[("cursor", cursor)], by].concat());
            (page.rows.len(), page.count, page.remaining)
        };
        assert_eq!(page("150"), (100, 100, Some(50)));
        assert_eq!(page("200"), (50, 50, Some(50)));
        assert_eq!(page("250"), (0, 0, Some(50)));
        assert_eq!(page("299"), (0, 0, Some(1)));
    }
}

#[test]
fn all_of_many_things_are_read_page_by_page() {
    let fake = shop_with(30_000);
    let mut ids = BTreeSet::new();
    let mut cursor = 0;
    loop {
        let page = orders(&fake, &[BY_DATE, BY_ID_TOO, ("cursor", &cursor.to_string())]);
        cursor += page.count;
        ids.extend(page.ids());
        assert_eq!(page.cursor + page.count + page.remaining.unwrap(), 30_000);
        if page.remaining == Some(0) {
            break;
        }
    }
    assert_eq!(ids.len(), 30_000);
}
