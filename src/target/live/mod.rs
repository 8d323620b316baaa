//! The view `<rollup>_live` for readers: the rows of the table, and those of the slices that are not
//! computed yet, aggregated when the view is read.
//!
//! A function reads the source with the settings and the rights of the role that ran `init`. It is
//! bounded by the buckets that the last tick has told (`tallymark.checked`), those of at most
//! [`SLICES`] slices.

use sqlx::Row as _;

use super::Target;
use super::beside::{marked, taken};
use super::ddl::DdlError;
use crate::clients::db::{DbError, Tx};
use crate::model::rollup::Rollup;
use crate::model::sql::{ident, literal};
use crate::source::reading::read;
use crate::source::reading::shape::Shape;

/// Slices that a live view aggregates at most: the newest that is over, the present one, and two
/// more, as the last tick may have been a while ago.
pub(crate) const SLICES: usize = 4;

const DOING: &str = "looking for the live view";

/// The settings of each of Tallymark's transactions that decide what a definition means.
const SETTINGS: &str = "SET TimeZone = 'UTC' SET DateStyle = 'ISO' SET IntervalStyle = 'postgres' \
    SET extra_float_digits = 1 SET bytea_output = 'hex' SET lc_monetary = 'C' SET lc_numeric = 'C' \
    SET lc_time = 'C' SET array_nulls = on SET transform_null_equals = off SET row_security = off \
    SET jit = off SET max_parallel_workers_per_gather = 0";

/// The objects of one rollup, quoted.
struct Names {
    view: String,
    function: String,
    /// The beginning of their comments.
    comment: String,
}

impl Names {
    fn of(target: &Target, rollup: &str) -> Self {
        Self {
            view: format!("{}.{}", ident(&target.schema), ident(&view_of(rollup))),
            function: format!("tallymark.{}", ident(&format!("tail_{rollup}"))),
            comment: format!("Tallymark live view of rollup {rollup}: "),
        }
    }

    fn dropping(&self) -> [String; 2] {
        [
            format!("DROP VIEW IF EXISTS {}", self.view),
            format!("DROP FUNCTION IF EXISTS {}()", self.function),
        ]
    }
}

/// The name of the live view of the rollup `name`.
#[must_use]
pub(crate) fn view_of(name: &str) -> String {
    format!("{name}_live")
}

/// The statements that `init` must still run for the live view of `rollup`, in order. A rollup that
/// is not live loses the one that it had.
///
/// # Errors
/// Something else has its name, or the server refuses or cannot be reached.
pub async fn plan(
    tx: &mut Tx,
    target: &Target,
    rollup: &Rollup,
    shape: &Shape,
) -> Result<Vec<String>, DdlError> {
    let names = Names::of(target, &rollup.name);
    let found = Found::read(tx, &names).await?;
    if !rollup.live {
        return Ok(if found.is_ours(&names) { names.dropping().into() } else { Vec::new() });
    }
    if found.has_view.is_some() && !found.is_ours(&names) {
        return Err(taken(rollup, &names.view));
    }
    let function = function(&names, rollup, shape, &found.path);
    let view = view(&names, target, rollup, shape);
    let both = format!("{function}{view}");
    let described = |meaning: &str| marked(&format!("{}{meaning}", names.comment), &both);
    let of_view = described("its rows, and those of slices that are not computed yet");
    let of_function = described("what its newest slices would have");
    if found.view.as_ref() == Some(&of_view) && found.function.as_ref() == Some(&of_function) {
        return Ok(Vec::new());
    }
    let mut statements: Vec<String> = names.dropping().into();
    statements.push(function);
    statements.push(view);
    let Names { view, function, .. } = &names;
    statements.push(format!("COMMENT ON VIEW {view} IS {}", literal(&of_view)));
    statements.push(format!("COMMENT ON FUNCTION {function}() IS {}", literal(&of_function)));
    Ok(statements)
}

/// The statements that drop the live view of the rollup `name`, which may be absent from the
/// configuration.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn dropping(
    tx: &mut Tx,
    target: &Target,
    name: &str,
) -> Result<Vec<String>, DbError> {
    let names = Names::of(target, name);
    let found = Found::read(tx, &names).await?;
    Ok(if found.is_ours(&names) { names.dropping().into() } else { Vec::new() })
}

/// Its columns with their types.
fn columns(shape: &Shape) -> Vec<(&str, &str)> {
    let bucket = ("bucket", shape.axis.bucket_as().sql_type());
    let dimensions = shape.dimensions.iter().map(|it| (it.name.as_str(), it.sql_type.as_str()));
    let fields = shape.fields.iter().map(|it| (it.name.as_str(), it.sql_type.as_str()));
    std::iter::once(bucket).chain(dimensions).chain(fields).collect()
}

fn function(names: &Names, rollup: &Rollup, shape: &Shape, path: &str) -> String {
    let columns = columns(shape);
    let typed = columns.iter().map(|(name, sql_type)| format!("{} {sql_type}", ident(name)));
    let results = columns.iter().map(|(name, sql_type)| format!("__g.{}::{sql_type}", ident(name)));
    // A reader's own temporary tables come last, as the function has other rights.
    let path = if path.trim().is_empty() { "pg_catalog" } else { path };
    format!(
        include_str!("tail.sql"),
        function = names.function,
        columns = typed.collect::<Vec<_>>().join(", "),
        results = results.collect::<Vec<_>>().join(", "),
        settings = format!("SET search_path = {path}, pg_temp {SETTINGS}"),
        rollup = literal(&rollup.name),
        select = read::select_tail(rollup, shape, "__starts", ("__since", "__until")),
    )
    .trim()
    .to_owned()
}

fn view(names: &Names, target: &Target, rollup: &Rollup, shape: &Shape) -> String {
    let generated = shape.generated.iter();
    let computed = generated
        .clone()
        .map(|it| format!(", ({})::{} AS {}", it.expression, it.sql_type, ident(&it.name)));
    let stored = columns(shape).into_iter().map(|(name, _)| name);
    let stored = stored.chain(generated.map(|it| it.name.as_str()));
    let stored: Vec<String> = stored.map(|name| format!("__t.{}", ident(name))).collect();
    format!(
        include_str!("view.sql"),
        view = names.view,
        stored = stored.join(", "),
        complete = rollup.time_of("__c.complete_through"),
        table = target.table(rollup),
        rollup = literal(&rollup.name),
        generated = computed.collect::<String>(),
        function = names.function,
    )
    .trim()
    .to_owned()
}

/// What has the names of a live view.
struct Found {
    /// Whether it is a view. `None`: nothing has its name.
    has_view: Option<bool>,
    view: Option<String>,
    function: Option<String>,
    /// The schemas of the role.
    path: String,
}

impl Found {
    async fn read(tx: &mut Tx, names: &Names) -> Result<Self, DbError> {
        let sql = format!(
            include_str!("found.sql"),
            view = literal(&names.view),
            function = literal(&names.function),
        );
        let row = tx.row(DOING, sql).await?;
        let read = || {
            Ok(Self {
                has_view: row.try_get("is_view")?,
                view: row.try_get("view")?,
                function: row.try_get("function")?,
                path: row.try_get("path")?,
            })
        };
        read().map_err(|source| tx.error(DOING, source))
    }

    fn is_ours(&self, names: &Names) -> bool {
        let is_described = |it: &String| it.starts_with(&names.comment);
        self.has_view == Some(true) && self.view.as_ref().is_some_and(is_described)
    }
}
