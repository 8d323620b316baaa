//! The table of labels, in which the names of the events' kinds stand.

use fastrand::Rng;

/// Its rows at the start of a history.
pub const RESET: &str = "DELETE FROM public.labels; \
    INSERT INTO public.labels VALUES ('view', 'a', ''), ('click', 'b', ''); \
    DELETE FROM tallymark.lookup_mark;";

/// A change of it.
pub fn change(random: &mut Rng) -> String {
    let kind = ["'view'", "'click'"][random.usize(0..2)];
    let name = ["'a'", "'b'", "NULL"][random.usize(0..3)];
    match random.u32(0..16) {
        0..=4 => format!("UPDATE public.labels SET name = {name} WHERE kind = {kind}"),
        5..=6 => format!("UPDATE public.labels SET note = {name} WHERE kind = {kind}"),
        7..=8 => "UPDATE public.labels SET kind = 'none' WHERE kind = 'view'".into(),
        9..=10 => format!("DELETE FROM public.labels WHERE kind = {kind}"),
        11 => "TRUNCATE public.labels".into(),
        _ => format!("INSERT INTO public.labels VALUES ({kind}, {name}) ON CONFLICT DO NOTHING"),
    }
}
