use std::fmt::Write as _;

use sqlx::{PgConnection, Row as _};

use crate::cli::ui::{self, Paint};

/// Width of the longest bar, in characters.
const BAR: f64 = 32.0;

/// The rollup by month, as bars.
pub(super) async fn draw(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT to_char(bucket AT TIME ZONE 'UTC', 'YYYY-MM') AS month, \
                sum(events)::bigint AS events, \
                round(coalesce(sum(revenue), 0))::bigint AS revenue \
         FROM stats.entity_daily GROUP BY month ORDER BY month",
    )
    .fetch_all(connection)
    .await?;
    let mut months = Vec::new();
    for row in &rows {
        months.push((
            row.try_get::<String, _>("month")?,
            row.try_get::<i64, _>("events")?.unsigned_abs(),
            row.try_get::<i64, _>("revenue")?.unsigned_abs(),
        ));
    }
    let most = months.iter().map(|(_, events, _)| *events).max().unwrap_or(1).max(1);
    let mut text = String::from("month    events");
    for (month, events, revenue) in months {
        #[expect(clippy::cast_precision_loss, reason = "the length of a bar")]
        let share = events as f64 / most as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 32")]
        let bar = "█".repeat((share * BAR).round() as usize);
        let bar = ui::paint(Paint::Green, format!("{bar:<32}"));
        let _ = write!(
            text,
            "\n{month}  {bar} {:>8}   revenue {:>9}",
            ui::number(events),
            ui::number(revenue)
        );
    }
    Ok(text)
}
