//! Looks whether the table is there, is Tallymark's, and may be used by the role.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::Postgres;
use crate::checkpoint::store::{StoreError, TableSummary};
use crate::clients::db::Access;
use crate::model::sql::{literal, shown};

/// The remedy for a table of another form.
const REMEDY: &str = "rename or drop it";

/// The columns in `table.sql`.
const COLUMNS: &str = "rollup text, sort text, item jsonb, unfinished boolean";

/// A row of `look.sql`.
struct Look {
    uses_schema: bool,
    role: String,
    is_there: bool,
    items: i64,
    bytes: i64,
    columns: Option<String>,
    lacking: Option<String>,
}

impl Look {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            uses_schema: row.try_get("use")?,
            role: row.try_get("role")?,
            is_there: row.try_get("is_there")?,
            items: row.try_get("items")?,
            bytes: row.try_get("bytes")?,
            columns: row.try_get("columns")?,
            lacking: row.try_get("lacking")?,
        })
    }
}

impl Postgres {
    pub(super) async fn describe_table(&self) -> Result<TableSummary, StoreError> {
        const OPERATION: &str = "describe table";
        let sql = include_str!("look.sql").replace("{name}", &literal(&self.name));
        let mut tx = self.begin(Access::ReadOnly, OPERATION).await?;
        let rows = tx.rows(OPERATION, sql).await.map_err(|error| self.error(OPERATION, error))?;
        tx.rollback().await.map_err(|error| self.error(OPERATION, error))?;
        let table = self.table.clone();
        let Some(row) = rows.first() else { return Err(StoreError::NoTable { table }) };
        let look = Look::read(row).map_err(|error| self.unreadable(OPERATION, error))?;
        let role = shown(&look.role);
        if !look.uses_schema {
            let rights = "USAGE on schema tallymark".to_owned();
            let grant = format!("GRANT USAGE ON SCHEMA tallymark TO {role}");
            return Err(StoreError::Lacks { table, role, rights, grant });
        }
        if !look.is_there {
            return Err(StoreError::NoTable { table });
        }
        if look.columns.as_deref() != Some(COLUMNS) {
            let found = look.columns.unwrap_or_default();
            let problem = format!("has the columns {found} instead of {COLUMNS}");
            return Err(StoreError::WrongTable { table, problem, remedy: REMEDY });
        }
        if let Some(lacking) = look.lacking {
            let grant = format!("GRANT {lacking} ON {table} TO {role}");
            return Err(StoreError::Lacks { table, role, rights: lacking, grant });
        }
        let (items, bytes) = (look.items.unsigned_abs(), look.bytes.unsigned_abs());
        Ok(TableSummary { status: "ACTIVE".to_owned(), items, bytes, on_demand: false })
    }
}
