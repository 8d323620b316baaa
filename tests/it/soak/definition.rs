//! The rollups, which change over the years, and their expected content: one `GROUP BY` of the
//! source, computed independently of Tallymark.

use chrono::{DateTime, Utc};

/// The start of the life, in the zone's own time.
pub const START: &str = "2011-01-01";

/// The present content of the definition file.
#[derive(Clone, Debug)]
pub struct Definition {
    /// The zone of the days.
    pub zone: &'static str,
    /// The kind of event that a separate measure counts, once that measure exists.
    pub counted: Option<&'static str>,
    /// Whether there is a mean.
    pub has_mean: bool,
    /// Whether there is a minimum.
    pub has_low: bool,
    /// Start of the rollup of weeks, while it exists.
    pub weekly: Option<String>,
    /// Slices before this are never recomputed.
    pub seal: Option<DateTime<Utc>>,
}

/// The scrub is part of every tick that has time left.
const SCRUB: &str = "[scrub]\nslices_per_day = 4\nrepair = true\n";

impl Definition {
    /// The initial definition.
    pub const fn new(zone: &'static str) -> Self {
        let (counted, has_mean, has_low) = (None, false, false);
        Self { zone, counted, has_mean, has_low, weekly: None, seal: None }
    }

    /// The rollups' names, the finest first.
    pub fn names(&self) -> Vec<&'static str> {
        let weekly = self.weekly.is_some().then_some("weekly");
        ["hourly", "daily", "monthly"].into_iter().chain(weekly).collect()
    }

    /// The file without the databases.
    pub fn text(&self) -> String {
        let Self { zone, .. } = self;
        let mut extra = (String::new(), String::new(), String::new());
        let mut add = |of_hours: String, of_days: &str, name: &str| {
            extra.0.push_str(&of_hours);
            extra.1.push_str(of_days);
            extra.2.push_str(&format!(", \"{name}\""));
        };
        if let Some(kind) = self.counted {
            let counted = format!("counted = {{ count = true, where = \"kind = '{kind}'\" }}\n");
            add(counted, "counted = { sum = \"counted\" }\n", "counted");
        }
        if self.has_mean {
            let mean = "mean = { avg = \"amount\" }\n".to_owned();
            add(mean, "mean = { avg = \"mean\" }\n", "mean");
        }
        if self.has_low {
            add("low = { min = \"amount\" }\n".to_owned(), "low = { min = \"low\" }\n", "low");
        }
        let seal = self
            .seal
            .map_or_else(String::new, |at| format!("seal_before = \"{}\"\n", at.to_rfc3339()));
        let (of_hours, of_days, of_months) = extra;
        let source = format!(
            "from = \"public.events\"\ntime = \"at\"\ntimezone = \"{zone}\"\nlate = \"capture\"\n\
             grace = \"2 minutes\"\nshrink_guard = 0.0\n"
        );
        let weekly = self.weekly.as_ref().map_or_else(String::new, |start| {
            format!(
                "[[rollup]]\nname = \"weekly\"\n{source}start = \"{start}\"\nslice = \"1 week\"\n\
                 group_by = [\"kind\"]\n[rollup.measures]\nevents = \"count\"\n\
                 people = {{ distinct = \"person\" }}\n"
            )
        });
        format!(
            "{SCRUB}[[rollup]]\nname = \"monthly\"\nfrom = {{ rollup = \"daily\" }}\n\
             slice = \"1 month\"\nshrink_guard = 0.0\n{seal}group_by = [\"kind\"]\n\
             measures = [\"events\", \"total\", \"high\"{of_months}]\n\
             [[rollup]]\nname = \"daily\"\nfrom = {{ rollup = \"hourly\" }}\nslice = \"1 day\"\n\
             shrink_guard = 0.0\n{seal}group_by = [\"kind\"]\n[rollup.measures]\n\
             events = {{ sum = \"events\" }}\ntotal = {{ sum = \"total\" }}\n\
             high = {{ max = \"high\" }}\n{of_days}\
             [[rollup]]\nname = \"hourly\"\n{source}start = \"{START}\"\nslice = \"1 day\"\n\
             bucket = \"1 hour\"\n{seal}group_by = [\"entity\", \"kind\"]\n[rollup.measures]\n\
             events = \"count\"\ntotal = {{ sum = \"amount\" }}\nhigh = {{ max = \"amount\" }}\n\
             people = {{ distinct = \"person\" }}\n{of_hours}{weekly}"
        )
    }

    /// The same with hours that are grouped by one column more, which an existing table cannot
    /// follow.
    pub fn incompatible(&self) -> String {
        let text = self.text();
        text.replace("[\"entity\", \"kind\"]", "[\"entity\", \"kind\", \"person\"]")
    }

    /// The columns of a rollup's table that are compared.
    pub fn columns(&self, name: &str) -> String {
        let mut columns = match name {
            "hourly" => "bucket, entity, kind, events, total, high, people",
            "weekly" => return "bucket, kind, events, people".to_owned(),
            _ => "bucket, kind, events, total, high",
        }
        .to_owned();
        if self.counted.is_some() {
            columns.push_str(", counted");
        }
        if self.has_mean {
            columns.push_str(", mean_sum, mean_count");
        }
        if self.has_low {
            columns.push_str(", low");
        }
        columns
    }

    /// One `GROUP BY` over the source's rows of `[from, to)`.
    pub fn truth(&self, name: &str, from: &str, to: &str) -> String {
        let zone = self.zone;
        let (bucket, entity) = match name {
            // Both zones are whole hours from UTC.
            "hourly" => ("date_bin('1 hour', at, '2011-01-01Z')".to_owned(), "entity, "),
            "daily" => (format!("date_trunc('day', at, '{zone}')"), ""),
            "weekly" => (format!("date_trunc('week', at, '{zone}')"), ""),
            _ => (format!("date_trunc('month', at, '{zone}')"), ""),
        };
        let mut measures = match name {
            "weekly" => "count(*), count(DISTINCT person)",
            "hourly" => "count(*), sum(amount), max(amount), count(DISTINCT person)",
            _ => "count(*), sum(amount), max(amount)",
        }
        .to_owned();
        if name != "weekly" {
            if let Some(kind) = self.counted {
                measures.push_str(&format!(", count(*) FILTER (WHERE kind = '{kind}')"));
            }
            if self.has_mean {
                measures.push_str(", sum(amount), count(amount)");
            }
            if self.has_low {
                measures.push_str(", min(amount)");
            }
        }
        format!(
            "SELECT {bucket}, {entity}kind, {measures} FROM public.events \
             WHERE at >= {from} AND at < {to} GROUP BY {bucket}, {entity}kind"
        )
    }

    /// Where a rollup begins, as SQL.
    pub fn start(&self, name: &str) -> String {
        let start = match (name, &self.weekly) {
            ("weekly", Some(start)) => start,
            _ => START,
        };
        format!("('{start}'::timestamp AT TIME ZONE '{}')", self.zone)
    }
}
