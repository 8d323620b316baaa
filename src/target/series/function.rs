//! The statements that make the series of one rollup.

use crate::model::measure::{Columns, Field};
use crate::model::rollup::{BucketType, Rollup};
use crate::model::sql::{ident, literal};
use crate::source::reading::shape::{Dimension, Shape};
use crate::target::indexes;

/// The most rows of one call.
const ROWS_MAX: u32 = 1_000_000;

/// Types that `only` compares by PostgreSQL's own equality.
const COMPARED: [&str; 18] = [
    "smallint",
    "integer",
    "bigint",
    "numeric",
    "real",
    "double precision",
    "boolean",
    "text",
    "character varying",
    "bpchar",
    "name",
    "date",
    "timestamp without time zone",
    "timestamp with time zone",
    "time without time zone",
    "uuid",
    "inet",
    "bytea",
];

/// Those of which the readers' index has the beginning.
const TEXTS: [&str; 3] = ["text", "character varying", "bpchar"];

/// A rollup with the columns of its series.
pub(super) struct Series<'s> {
    pub(super) rollup: &'s Rollup,
    pub(super) shape: &'s Shape,
    /// The rollup's table, quoted.
    pub(super) table: String,
    /// The name of the function and of the type of its rows, quoted.
    pub(super) name: String,
    /// Where the types of its columns are, besides PostgreSQL's own schema.
    pub(super) schemas: String,
    /// The measures that merge.
    pub(super) merged: Columns,
}

impl Series<'_> {
    /// The statement for the type of the rows.
    pub(super) fn row_type(&self) -> String {
        let column = |name: &str, sql_type: &str, collation: Option<&String>| {
            let collation = collation.map_or_else(String::new, |it| format!(" COLLATE {it}"));
            format!("    {} {sql_type}{collation}", ident(name))
        };
        let mut columns = vec![column("bucket", self.shape.axis.bucket_as().sql_type(), None)];
        let dimensions = self.shape.dimensions.iter();
        columns.extend(dimensions.map(|it| column(&it.name, &it.sql_type, it.collation.as_ref())));
        let fields = self.merged.fields.iter();
        columns.extend(fields.map(|it| column(&it.name, &it.sql_type, it.collation.as_ref())));
        let generated = self.merged.generated.iter();
        columns.extend(generated.map(|it| column(&it.name, &it.sql_type, None)));
        columns.push(column("complete", "boolean", None));
        format!("CREATE TYPE {} AS (\n{}\n)", self.name, columns.join(",\n"))
    }

    /// The statement for the function.
    pub(super) fn function(&self) -> String {
        let rollup = self.rollup;
        let zone = literal(rollup.calendar.zone().name());
        // In one pass, because a name may look like another placeholder.
        format!(
            include_str!("function.sql"),
            name = self.name,
            schemas = self.schemas,
            rollup = literal(&rollup.name),
            definition = literal(&rollup.definition()),
            zone = zone,
            bucket = literal(&rollup.bucket.interval()),
            week_start = rollup.bucket.week_start().map_or(0, |day| day.num_days_from_monday()),
            place_type = match rollup.bucket_as {
                BucketType::Instant => "timestamptz",
                BucketType::Date => "date",
            },
            places = self.places(&zone),
            dimensions = self.names(),
            variables = self.of_dimensions(variables),
            choices = self.of_dimensions(|place, it| self.choice(place, it)),
            is_plain = self.is_plain(&zone),
            is_single = self.is_single(),
            single = self.single(),
            plain = self.rows(&self.plain()),
            merged = self.rows(&self.merged()),
            rows_max = ROWS_MAX,
        )
    }

    /// The statement that returns the rows, from those of each group and step.
    fn rows(&self, groups: &str) -> String {
        let keys = self.shape.dimensions.iter().map(|it| format!("g.{}", ident(&it.name)));
        let keys: Vec<_> = keys.collect();
        let here = |field: &Field| {
            format!("CASE WHEN e.__at = e.__place THEN e.{} END", ident(&field.name))
        };
        format!(
            include_str!("rows.sql"),
            groups = groups,
            outer_dimensions = self.of_dimensions(|_, it| format!(", f.{}", ident(&it.name))),
            columns = self.columns(),
            filled = format!(
                "{}{}",
                self.of_dimensions(|_, it| format!(", e.{}", ident(&it.name))),
                self.of_fields(|it| filled(it, "e", here(it)))
            ),
            partition = match keys.is_empty() {
                true => String::new(),
                false => format!("PARTITION BY {} ", keys.join(", ")),
            },
            rows_max = ROWS_MAX,
        )
    }

    /// The measures of a row `f` of the series.
    fn columns(&self) -> String {
        let generated = self.merged.generated.iter().map(|it| format!(", {}", it.expression));
        let fields = self.of_fields(|it| format!(", f.{}", ident(&it.name)));
        format!("{fields}{}", generated.collect::<String>())
    }

    /// The statement that returns the rows of one group, where a step is a bucket.
    fn single(&self) -> String {
        format!(
            include_str!("single.sql"),
            outer_dimensions = self.of_dimensions(|_, it| format!(", f.{}", ident(&it.name))),
            columns = self.columns(),
            filled = format!(
                "{}{}",
                self.of_dimensions(|_, it| format!(", s.{}", ident(&it.name))),
                self.of_fields(|it| filled(it, "s", format!("r.{}", ident(&it.name))))
            ),
            dimensions = self.of_dimensions(|_, it| format!(", g.{}", ident(&it.name))),
            read = self.read_plain(),
            table = self.table,
            conditions = self.of_dimensions(|place, it| self.condition(place, it)),
        )
    }

    /// The condition that `only` leaves one group at most: it gives one value of each dimension.
    fn is_single(&self) -> String {
        let dimensions = &self.shape.dimensions;
        let fits = |it: &Dimension| is_compared(it) && !it.is_array;
        if dimensions.is_empty() || !dimensions.iter().all(fits) {
            return "false".to_owned();
        }
        let is_one = |place| format!("cardinality(__wanted_{place}) = 1 AND NOT __null_{place}");
        (0..dimensions.len()).map(is_one).collect::<Vec<_>>().join(" AND ")
    }

    /// The rows of the table, where a step is a bucket.
    fn plain(&self) -> String {
        format!(
            include_str!("plain.sql"),
            place = self.place(),
            columns = self.read_plain(),
            table = self.table,
            conditions = self.of_dimensions(|place, it| self.condition(place, it)),
        )
    }

    /// The columns of the rollup's table that are in the series as they are.
    fn read_plain(&self) -> String {
        let dimensions = self.of_dimensions(|_, it| format!(", t.{}", ident(&it.name)));
        dimensions + &self.of_fields(|it| format!(", t.{}", ident(&it.name)))
    }

    /// The rows of the table, merged by group and step.
    fn merged(&self) -> String {
        format!(
            include_str!("merged.sql"),
            inner_dimensions = self.of_dimensions(|_, it| format!(", {}", ident(&it.name))),
            merged =
                self.of_fields(|it| format!(", {} AS {}", it.expressions.direct, ident(&it.name))),
            place = self.place(),
            grouped = self.of_dimensions(|place, it| {
                let name = ident(&it.name);
                format!(", CASE WHEN __by_{place} THEN t.{name} END AS {name}")
            }),
            read = self.read(),
            table = self.table,
            conditions = self.of_dimensions(|place, it| self.condition(place, it)),
            nothing = self.nothing(),
            is_total = match self.shape.dimensions.is_empty() {
                true => "true",
                false => "cardinality($5) = 0",
            },
        )
    }

    /// The condition that each group has at most one row in a step: a step is a bucket of the present
    /// definition. Slices that another one computed are told as incomplete and with numbers.
    fn is_plain(&self, zone: &str) -> String {
        let own = |field: &Field| {
            let columns = &self.shape.fields;
            columns.iter().any(|it| it.name == field.name && it.sql_type == field.sql_type)
        };
        if self.shape.dimensions.is_empty() || !self.merged.fields.iter().all(own) {
            return "false".to_owned();
        }
        format!(
            "$3 = {}::interval AND coalesce($4, {zone}) = {zone} AND ($5 IS NULL OR $5 @> {}) \
             AND 1 <> ALL (__standing)",
            literal(&self.rollup.bucket.interval()),
            self.names(),
        )
    }

    /// The names of the dimensions, as an array.
    fn names(&self) -> String {
        let names = self.shape.dimensions.iter().map(|it| literal(&it.name));
        format!("ARRAY[{}]::text[]", names.collect::<Vec<_>>().join(", "))
    }

    fn of_dimensions(&self, sql: impl Fn(usize, &Dimension) -> String) -> String {
        self.shape.dimensions.iter().enumerate().map(|(place, it)| sql(place, it)).collect()
    }

    fn of_fields(&self, sql: impl Fn(&Field) -> String) -> String {
        self.merged.fields.iter().map(sql).collect()
    }

    /// The columns of the rollup's table that the merges read.
    fn read(&self) -> String {
        let names = self.shape.fields.iter().map(|it| ident(&it.name));
        names.map(|name| format!(", t.{name}")).collect()
    }

    /// A row without numbers, of the group of everything.
    fn nothing(&self) -> String {
        let dimensions = self.shape.dimensions.iter().map(|it| &it.sql_type);
        let fields = self.shape.fields.iter().map(|it| &it.sql_type);
        dimensions.chain(fields).map(|sql_type| format!(", NULL::{sql_type}")).collect()
    }

    /// The starts of the steps in the type of the buckets.
    fn places(&self, zone: &str) -> String {
        match self.rollup.bucket_as {
            BucketType::Instant => "__starts".to_owned(),
            BucketType::Date => format!(
                "ARRAY(SELECT (s AT TIME ZONE {zone} + interval '12 hours')::date FROM \
                 unnest(__starts) WITH ORDINALITY AS u (s, i) ORDER BY i)"
            ),
        }
    }

    /// The step of a row's bucket.
    fn place(&self) -> &'static str {
        match self.rollup.bucket_as {
            BucketType::Instant => {
                "CASE WHEN __seconds > 0 THEN \
                 floor((date_part('epoch', t.bucket) - __first) / __seconds)::integer + 1 \
                 ELSE width_bucket(t.bucket, __places) END"
            }
            BucketType::Date => "width_bucket(t.bucket, __places)",
        }
    }

    /// The statements that read `by` and `only` for a dimension.
    fn choice(&self, place: usize, dimension: &Dimension) -> String {
        let name = literal(&dimension.name);
        let values = format!(
            "jsonb_array_elements_text(CASE jsonb_typeof($6 -> {name}) WHEN 'array' THEN $6 -> {name} \
             ELSE jsonb_build_array($6 -> {name}) END)"
        );
        let beginnings = self.beginning(dimension).map_or_else(String::new, |characters| {
            format!(
                "        __begins_{place} := ARRAY(SELECT left(v::text, {characters}) \
                 FROM unnest(__wanted_{place}) AS v);\n"
            )
        });
        format!(
            "    __by_{place} := $5 IS NULL OR {name} = ANY ($5);\n\
             \x20   __has_{place} := coalesce($6 ? {name}, false);\n\
             \x20   IF __has_{place} THEN\n\
             \x20       __texts := ARRAY(SELECT {values});\n\
             \x20       __null_{place} := array_position(__texts, NULL) IS NOT NULL;\n\
             \x20       __wanted_{place} := array_remove(__texts, NULL)::{}[];\n{beginnings}\
             \x20   END IF;\n",
            wanted_type(dimension),
        )
    }

    /// The condition that `only` makes for a dimension.
    fn condition(&self, place: usize, dimension: &Dimension) -> String {
        let name = format!("t.{}", ident(&dimension.name));
        let wanted = format!("__wanted_{place}");
        let equal = match () {
            () if dimension.is_array => format!("{name}::text = ANY ({wanted})"),
            () if is_compared(dimension) => format!("{name} = ANY ({wanted})"),
            // The type's own equality, wherever its operators are.
            () => {
                format!("EXISTS (SELECT FROM unnest({wanted}) AS w WHERE ARRAY[w] = ARRAY[{name}])")
            }
        };
        let begins = self.beginning(dimension).map_or_else(String::new, |characters| {
            format!("left({name}::text, {characters}) = ANY (__begins_{place}) AND ")
        });
        format!(
            "\n{:32}AND (NOT __has_{place} OR {begins}{equal} OR __null_{place} AND {name} IS NULL)",
            ""
        )
    }

    /// The characters of a text in the readers' index.
    fn beginning(&self, dimension: &Dimension) -> Option<usize> {
        let is_text = TEXTS.contains(&&*dimension.sql_type) && dimension.collation.is_none();
        is_text.then(|| indexes::characters(self.shape.dimensions.len()))
    }
}

fn is_compared(dimension: &Dimension) -> bool {
    COMPARED.contains(&&*dimension.sql_type)
}

fn wanted_type(dimension: &Dimension) -> &str {
    if dimension.is_array { "text" } else { &dimension.sql_type }
}

fn variables(place: usize, dimension: &Dimension) -> String {
    let texts = if place == 0 { "    __texts text[];\n" } else { "" };
    let wanted = wanted_type(dimension);
    format!(
        "{texts}    __by_{place} boolean;\n    __has_{place} boolean;\n    __null_{place} boolean := \
         false;\n    __wanted_{place} {wanted}[];\n    __begins_{place} text[];\n"
    )
}

/// The value of a measure in a step of `of`: `here`, that of the group's row there, or of no rows.
/// NULL: nothing of the step is computed.
fn filled(field: &Field, of: &str, here: String) -> String {
    let name = ident(&field.name);
    let value = match &field.empty {
        Some(empty) => format!("coalesce({here}, {empty})"),
        None => here,
    };
    format!(", CASE WHEN {of}.__standing > 0 THEN {value} END AS {name}")
}
