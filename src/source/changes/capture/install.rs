//! The statements that install a capture, or remove it.

use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use super::relation::Relation;
use super::{Capture, Purpose, UsedColumns, VERSION};
use crate::clients::db::{CatalogueError, DbError, Tx};
use crate::model::hint::Fault;
use crate::model::sql::{ident, literal, shown, table};
use crate::source::changes::consumers;
use crate::source::changes::lookup;
use crate::source::changes::triggers::{self, TRIGGERS};

impl Capture {
    /// The statements that complete the capture, in order. An empty list means that it is complete.
    /// `reader` is the role that reads the source and takes the marks.
    ///
    /// # Errors
    /// A relation, which the text names, cannot be captured, or the server refuses.
    pub async fn install(&self, tx: &mut Tx, reader: &str) -> Result<Vec<String>, CatalogueError> {
        let mut sql = self.install_table(tx, reader).await?;
        if !self.lookups.is_empty()
            && let Some(root) = self.relations(tx).await?.first()
        {
            let key = root.function.clone().unwrap_or_else(|| function_name(&root.name));
            sql.extend(lookup::install(tx, &self.lookups, &key, reader).await?);
        }
        Ok(sql)
    }

    async fn install_table(
        &self,
        tx: &mut Tx,
        reader: &str,
    ) -> Result<Vec<String>, CatalogueError> {
        let relations = self.relations(tx).await?;
        let (columns, mut noted) = self.registered(tx, &relations).await?;
        if self.problem(&relations).is_none() && !self.may_narrow(&relations, &columns) {
            // The role of another installation may still lack the rights that it needs.
            if !is_granted(tx, reader).await? {
                noted.extend(grants(reader));
            }
            return Ok(noted);
        }
        if relations.is_empty() || relations.iter().any(|relation| !relation.can_be_captured()) {
            return Err(self.problem(&relations).unwrap_or_default().into());
        }
        let name = match relations.first().and_then(|root| root.function.clone()) {
            Some(name) => name,
            None => function_name(&relations[0].name),
        };
        let mut sql = shared(tx, reader, relations[0].has_marks).await?;
        sql.push(triggers::mark_function(&name, &self.axes));
        sql.push(triggers::function(&name, &self.axes));
        let purpose = self.purpose(columns);
        let comment = serde_json::to_string(&purpose).unwrap_or_default();
        let [function, mark] = triggers::signatures(&name);
        sql.push(format!("COMMENT ON FUNCTION {function} IS {}", literal(&comment)));
        let meaning = literal("Tallymark capture: marks an hour");
        sql.push(format!("COMMENT ON FUNCTION {mark} IS {meaning}"));
        sql.push(format!("REVOKE ALL ON FUNCTION {function}, {mark} FROM PUBLIC"));
        for relation in &relations {
            for trigger in relation.own() {
                sql.push(format!("DROP TRIGGER IF EXISTS {} ON {}", trigger.0, relation.name));
                let late = (&*self.axes, self.grace);
                let columns = &purpose.columns;
                sql.push(triggers::trigger(trigger, &relation.name, &function, late, columns));
            }
        }
        for relation in &relations {
            for (name, _) in TRIGGERS {
                sql.push(format!("ALTER TABLE {} ENABLE ALWAYS TRIGGER {name}", relation.name));
            }
        }
        let root = &relations[0];
        if root.kind == "p" && (root.function.is_none() || !root.has_consumers) {
            // From here on every change of the partitions is noticed. Their present rows will be
            // read with the slices.
            sql.push(self.partitions(&name, &[]));
        }
        sql.extend(grants(reader));
        sql.extend(noted);
        Ok(sql)
    }

    /// The columns that all registered consumers and the own rollups use, and the statements that
    /// record those of the own consumers. Until the end of the transaction no consumer registers.
    async fn registered(
        &self,
        tx: &mut Tx,
        relations: &[Relation],
    ) -> Result<(UsedColumns, Vec<String>), DbError> {
        let (mut columns, mut noted) = (self.used(relations), Vec::new());
        let standing = self.judge(relations);
        let (Some(key), Some(root)) = (&standing.key, relations.first()) else {
            return Ok((columns, noted));
        };
        let lock = "LOCK TABLE tallymark.consumer IN SHARE ROW EXCLUSIVE MODE".to_owned();
        tx.execute("holding the consumers", lock).await?;
        for consumer in consumers::all(tx, key).await? {
            let is_own = self.own.get(&consumer.rollup) == Some(&consumer.id);
            match standing.used.get(&consumer.rollup).filter(|_| is_own) {
                Some(used) if *used == consumer.columns => {}
                Some(used) => noted.push(consumers::uses(consumer.id, used)),
                None => columns = columns.and(&consumer.columns.within(&root.columns)),
            }
        }
        Ok((columns, noted))
    }

    /// Whether triggers that serve could compare fewer columns, and be the same otherwise.
    fn may_narrow(&self, relations: &[Relation], columns: &UsedColumns) -> bool {
        let made_for = relations.first().and_then(Relation::made_for);
        let wanted = self.purpose(columns.clone());
        made_for.is_some_and(|it| {
            it != wanted
                && Purpose { columns: wanted.columns.clone(), version: VERSION, ..it } == wanted
        })
    }

    /// The statements that remove the capture, with its unread marks. An empty list means that
    /// there is none. The own consumers no longer need it.
    ///
    /// # Errors
    /// It has other consumers, which the text names, or the server refuses.
    pub(crate) async fn remove(&self, tx: &mut Tx) -> Result<Vec<String>, CatalogueError> {
        let relations = self.relations(tx).await?;
        let mut sql = Vec::new();
        let key = self.judge(&relations).key;
        if let Some(key) = &key {
            let others = consumers::all(tx, key).await?;
            if let Some(other) =
                others.iter().find(|other| !self.own.values().any(|own| *own == other.id))
            {
                let fault = Fault::new(format!(
                    "rollup {} of {} counts {} by the same triggers",
                    other.rollup,
                    other.installation,
                    table(&self.table)
                ));
                let remedy = format!(
                    "remove them there, or run `tallymark capture forget {}` first",
                    other.id
                );
                return Err(fault.remedy(remedy).into());
            }
        }
        sql.extend(lookup::remove(tx, &self.lookups, key.as_deref()).await?);
        for relation in &relations {
            for name in relation.own().map(|(name, _)| name) {
                if relation.triggers.contains_key(name) {
                    sql.push(format!("DROP TRIGGER {name} ON {}", relation.name));
                }
            }
        }
        if let Some(root) = relations.first()
            && let Some(name) = &root.function
        {
            let [function, mark] = triggers::signatures(name);
            sql.push(format!("DROP FUNCTION {function}"));
            sql.push(format!("DROP FUNCTION IF EXISTS {mark}"));
            if root.has_marks {
                let name = literal(name);
                sql.push(format!("DELETE FROM tallymark.mark WHERE capture = {name}"));
                if root.has_consumers {
                    sql.push(format!("DELETE FROM tallymark.consumer WHERE capture = {name}"));
                    sql.push(format!("DELETE FROM tallymark.partition WHERE capture = {name}"));
                }
            }
        }
        Ok(sql)
    }
}

/// The rights that the role needs for reading the source and taking marks.
fn grants(reader: &str) -> Vec<String> {
    let reader = ident(reader);
    vec![
        format!("GRANT USAGE ON SCHEMA tallymark TO {reader}"),
        format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON tallymark.mark, tallymark.consumer, \
             tallymark.taken, tallymark.partition TO {reader}"
        ),
    ]
}

/// Whether the role has these rights.
async fn is_granted(tx: &mut Tx, reader: &str) -> Result<bool, DbError> {
    const DOING: &str = "looking at privileges";
    let role = literal(reader);
    let sql = format!(
        "SELECT has_schema_privilege({role}, 'tallymark', 'USAGE') AND NOT EXISTS (SELECT FROM \
         unnest(ARRAY['mark', 'consumer', 'taken', 'partition']) t, \
         unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p \
         WHERE NOT has_table_privilege({role}, 'tallymark.' || t, p))"
    );
    tx.row(DOING, sql).await?.try_get(0).map_err(|source| tx.error(DOING, source))
}

/// The tables of a capture, and what they are for.
const COMMENTS: [(&str, &str); 4] = [
    ("mark", "Hours whose rows a transaction changed late"),
    ("consumer", "The rollups that count captured tables"),
    ("taken", "Which consumers have turned which marks into reopenings"),
    ("partition", "The partitions of captured tables as a tick last saw them"),
];

/// The function name of a new capture. It is a hash, as the table's name may change later.
fn function_name(relation: &str) -> String {
    let hash = Sha256::digest(relation.as_bytes());
    let hex: String = hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("capture_{hex}")
}

/// The schema and the table of marks. The functions run as the role that installs them, and the
/// owner of the schema could replace the objects that they call. So the schema must belong to the
/// installing role or to the reading role.
async fn shared(tx: &mut Tx, reader: &str, has_marks: bool) -> Result<Vec<String>, CatalogueError> {
    const DOING: &str = "looking at the schema tallymark";
    // Operators of the session's path would become part of the triggers' conditions.
    let mut sql = vec!["SET LOCAL search_path = pg_catalog, pg_temp".to_owned()];
    let schema = format!(include_str!("../capture_schema.sql"), reader = literal(reader));
    match tx.rows(DOING, schema).await?.first() {
        None => sql.push("CREATE SCHEMA tallymark".to_owned()),
        Some(row) => {
            let found: Option<String> =
                row.try_get("stranger").map_err(|error| tx.error(DOING, error))?;
            if let Some(role) = found {
                let revoked = if role == "PUBLIC" { role.clone() } else { shown(&role) };
                let fault = Fault::new(format!(
                    "{role} can replace what stands in the schema tallymark, and would act as the \
                     owner of the capture's functions"
                ));
                let remedy = format!(
                    "run ALTER SCHEMA tallymark OWNER TO the role that installs, and REVOKE CREATE \
                     ON SCHEMA tallymark FROM {revoked}"
                );
                return Err(fault.remedy(remedy).into());
            }
        }
    }
    if has_marks {
        // The table of an older version lacks it.
        sql.push("ALTER TABLE tallymark.mark ADD COLUMN IF NOT EXISTS xact xid8".to_owned());
    } else {
        sql.push(include_str!("../mark.sql").trim().to_owned());
    }
    sql.push(include_str!("../consumer.sql").trim().to_owned());
    sql.push(include_str!("../taken.sql").trim().to_owned());
    sql.push(include_str!("../partition.sql").trim().to_owned());
    if !has_marks {
        sql.extend(COMMENTS.map(|(table, comment)| {
            format!("COMMENT ON TABLE tallymark.{table} IS {}", literal(comment))
        }));
    }
    sql.push(
        "REVOKE ALL ON tallymark.mark, tallymark.consumer, tallymark.taken, tallymark.partition \
         FROM PUBLIC"
            .to_owned(),
    );
    Ok(sql)
}
