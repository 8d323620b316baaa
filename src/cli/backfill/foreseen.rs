//! The estimate of a backfill as text and as JSON.

use std::time::Duration;

use serde_json::json;

use crate::cli::ui::{self, counted, number};
use crate::config::NiceRatio;
use crate::work::estimate::{CoarseEstimate, Estimate};
use crate::work::price::PRICES_OF;
use crate::work::size;
use crate::work::worker::Worker;

/// The estimate of a backfill, shown after its plan.
pub(in crate::cli) fn foreseen(worker: &Worker, estimate: &Estimate) -> String {
    let Estimate { rows, blocks, source_ms, elapsed_ms, .. } = *estimate;
    let ms = |ms| ui::duration(Duration::from_millis(ms));
    if let Some(units) = estimate.workload_units {
        return format!(
            "\n  {} things by the app's count, for about {units}\n  about {} in requests, {} in all, \
             done by {}",
            number(rows),
            ms(source_ms),
            ms(elapsed_ms),
            ui::instant(estimate.finish_at),
        ) + &followed(estimate);
    }
    let how = match estimate.is_learned {
        true => "as its newest slices",
        false => "a guess: no slice has been computed yet",
    };
    format!(
        "\n  about {} source rows in {} blocks, by the planner's statistics\n  about {} in statements \
         on the source, {} in all ({how})\n  done by {} at nice_ratio {}, {}{}{}",
        number(rows),
        number(blocks),
        ms(source_ms),
        ms(elapsed_ms),
        ui::instant(estimate.finish_at),
        match worker.governor.settings().nice_ratio {
            NiceRatio::Auto => "auto at its slowest".to_owned(),
            fixed @ NiceRatio::Fixed(_) => fixed.to_string(),
        },
        ui::counted(worker.governor.settings().slots as usize, "slot"),
        followed(estimate),
        priced(estimate),
    ) + &grouped(estimate)
}

/// The groups, and the size of their table. Empty if nothing tells.
fn grouped(estimate: &Estimate) -> String {
    let sizes = estimate.size.zip(estimate.groups()).zip(estimate.table_bytes());
    let Some(((size, groups), bytes)) = sizes else { return String::new() };
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let bytes = ui::bytes(bytes as f64);
    let mut text = format!(
        "\n  about {} groups in a table of about {bytes}, {}",
        number(groups),
        ui::ratio(size.rows_per_group)
    );
    if size.hardly_compresses() {
        text.push_str(&format!("\n  it hardly compresses: {}", size::REMEDY));
    }
    text
}

/// The slices of coarse rollups that follow, a line for each rollup.
fn followed(estimate: &Estimate) -> String {
    let line = |it: &CoarseEstimate| {
        format!(
            "\n  afterwards ticks compute {} of {}, in about {}{}",
            counted(it.slices, "slice"),
            it.rollup,
            ui::duration(Duration::from_millis(it.elapsed_ms)),
            if it.is_learned { "" } else { " (a guess)" },
        )
    };
    estimate.coarse.iter().map(line).collect()
}

/// The price on AWS by service. Empty if AWS has no part in the work.
fn priced(estimate: &Estimate) -> String {
    if !estimate.is_on_aws {
        return String::new();
    }
    let dollars = &estimate.dollars;
    let dynamodb = match dollars.dynamodb > 0.0 {
        true => format!(", DynamoDB {:.2}", dollars.dynamodb),
        false => String::new(),
    };
    format!(
        "\n  on AWS about ${:.2}: Lambda {:.2}{dynamodb}, SQS {:.2}, logs {:.2} (list prices of {})",
        dollars.total(),
        dollars.lambda,
        dollars.sqs,
        dollars.logs,
        PRICES_OF,
    )
}

/// The estimate of a backfill, as `plan` and `backfill` print it with `--json`.
pub(in crate::cli) fn foreseen_document(estimate: &Estimate) -> serde_json::Value {
    let mut document = json!({
        "rows": estimate.rows,
        "blocks": estimate.blocks,
        "source_ms": estimate.source_ms,
        "elapsed_ms": estimate.elapsed_ms,
        "finish_at": estimate.finish_at,
        "learned": estimate.is_learned,
        "groups": estimate.groups(),
        "table_bytes": estimate.table_bytes(),
        "dollars": estimate.is_on_aws.then_some(estimate.dollars),
    });
    if !estimate.coarse.is_empty() {
        document["coarse"] = json!(estimate.coarse);
    }
    if let Some(units) = estimate.workload_units {
        document["workload_units"] = json!(units);
    }
    document
}
