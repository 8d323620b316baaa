//! A server: its version, its connection, its load, and the privileges of the role.

use sqlx::Row as _;

use super::{Findings, Grade, state};
use crate::cli::ui;
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, Db, DbError, Side};
use crate::config::NiceRatio;
use crate::model::hint::{Fault, Hinted as _};
use crate::model::not_now::Why;
use crate::work::worker::{WorkError, Worker};

/// A separate connection to one server. Two transactions on it have two backends only behind a
/// pooler.
pub(super) fn alone(worker: &Worker, side: Side) -> Result<Db, WorkError> {
    let (source, target) = (&worker.config.source.url, &worker.config.target.url);
    let url = match side {
        Side::Source => source,
        Side::Target => target.as_ref().unwrap_or(source),
    };
    Ok(Db::new(url, side, 1)?.at_once())
}

/// Checks connection, version, TLS, pooler and state of one server. `writes` says whether Tallymark
/// writes to it.
pub(super) async fn server(db: &Db, writes: bool, findings: &mut Findings) -> Result<(), DbError> {
    let subject = db.side().to_string();
    let question = "SELECT current_setting('server_version_num')::int AS version, \
         coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS tls, \
         current_user::text AS role, pg_backend_pid() AS pid, \
         host(inet_server_addr()) AS address, pg_is_in_recovery() AS replica";
    let mut pids = Vec::new();
    for round in 0..2 {
        let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, "check").await?;
        let row = tx.row("looking at the server", question.into()).await?;
        let read = || {
            Ok::<_, sqlx::Error>((
                row.try_get::<i32, _>("version")?,
                row.try_get::<bool, _>("tls")?,
                row.try_get::<String, _>("role")?,
                row.try_get::<i32, _>("pid")?,
                row.try_get::<Option<String>, _>("address")?,
                row.try_get::<bool, _>("replica")?,
            ))
        };
        let (version, tls, role, pid, address, replica) =
            read().map_err(|source| tx.error("looking at the server", source))?;
        if round == 0 {
            state::inspect(&mut tx, &subject, writes, findings).await?;
        }
        tx.rollback().await?;
        pids.push(pid);
        if round > 0 {
            continue;
        }
        let (major, minor) = (version / 10_000, version % 10_000);
        let answer = format!("PostgreSQL {major}.{minor}, connected as {role}");
        if version < 130_000 {
            findings.add(
                Grade::Bad,
                &subject,
                format!("{answer}; PostgreSQL 13 or later is needed"),
            );
        } else {
            findings.add(Grade::Good, &subject, answer);
        }
        let (grade, finding) = encryption(tls, address.as_deref());
        findings.add(grade, &subject, finding);
        if replica {
            findings.add(
                Grade::Note,
                &subject,
                "a replica: the writers of the primary cannot be seen from here, so allow for its \
                 replay lag in `grace`",
            );
        }
    }
    if pids[0] != pids[1] {
        findings.add(
            Grade::Good,
            &subject,
            "behind a transaction pooler (two transactions had two backends); nothing here needs \
             a session",
        );
    }
    Ok(())
}

/// The readable signals of the governor, and its present decision.
pub(super) async fn load(worker: &Worker, findings: &mut Findings) -> Result<(), DbError> {
    /// Rates need two samples this far apart.
    const BETWEEN: std::time::Duration = std::time::Duration::from_millis(1100);
    let governor = &worker.governor;
    let look = async || {
        let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, "check").await?;
        let seen = governor.describe_load(&mut tx).await?;
        tx.rollback().await?;
        Ok::<_, DbError>(seen)
    };
    let (mut signals, mut why) = look().await?;
    if !signals.is_empty() {
        tokio::time::sleep(BETWEEN).await;
        (signals, why) = look().await?;
    }
    if why.is_none() {
        why = governor.throttled(&worker.source).await;
    }
    let settings = governor.settings();
    let (slots, nice) = (settings.slots, settings.nice_ratio);
    let mut finding = format!(
        "governor: at most {} at once, {}",
        ui::counted(slots as usize, "chunk"),
        match nice {
            NiceRatio::Auto => format!(
                "rests up to {} × as long as each took, fewer while the server is calm",
                nice.slowest()
            ),
            NiceRatio::Fixed(nice) => format!("rests {nice} × as long as each took"),
        }
    );
    finding.push_str(&match signals.is_empty() {
        true => "; no max_load is set".to_owned(),
        false => format!("; load now: {}", signals.join(", ")),
    });
    match why {
        None => findings.add(Grade::Good, "source", finding),
        Some(why @ Why::Unreadable(_)) => {
            findings.add(Grade::Bad, "source", Fault::of(&why).at("governor"));
        }
        Some(why) => findings.add(
            Grade::Note,
            "source",
            format!("{finding}; nothing would be read now: {why}"),
        ),
    }
    Ok(())
}

/// Checks whether the load is seen where the governor finds the pace by itself.
pub(super) async fn pace(worker: &Worker, findings: &mut Findings) {
    if worker.governor.settings().nice_ratio != NiceRatio::Auto {
        return;
    }
    if let Err(error) = worker.governor.look(&worker.source).await {
        let fault = Fault::new(format!("the load is not seen: {}", error.in_one_line())).remedy(
            "let the role read pg_stat_database and pg_locks; until then reading keeps its \
             slowest pace",
        );
        findings.add(Grade::Note, "source", fault);
    }
}

/// Checks whether statements can nap.
pub(super) async fn naps(worker: &Worker, findings: &mut Findings) -> Result<(), DbError> {
    let settings = worker.governor.settings();
    if !settings.naps || settings.nice_ratio.slowest() == 0.0 {
        return Ok(());
    }
    let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, "check").await?;
    let question = "SELECT has_function_privilege('pg_catalog.pg_sleep(double precision)', 'EXECUTE'), \
         quote_ident(current_user)";
    let row = tx.row("looking at privileges", question.into()).await?;
    let asked = row.try_get(0).and_then(|may: bool| Ok((may, row.try_get::<String, _>(1)?)));
    let (may, role) = asked.map_err(|source| tx.error("looking at privileges", source))?;
    tx.rollback().await?;
    if !may {
        findings.add(
            Grade::Bad,
            "source",
            Fault::new("the role may not execute pg_sleep, in which statements rest").remedy(format!(
                "as a superuser: GRANT EXECUTE ON FUNCTION pg_sleep(double precision) TO {role}; or \
                 set naps = false in [source]"
            )),
        );
    }
    Ok(())
}

/// The finding about a connection to the server at `address`. `None`: a Unix socket.
fn encryption(tls: bool, address: Option<&str>) -> (Grade, Fault) {
    let is_local = address.is_none_or(|address| address == "127.0.0.1" || address == "::1");
    match (tls, is_local) {
        (true, _) => (Grade::Good, "the connection is encrypted".into()),
        (false, true) => (Grade::Good, "not encrypted, but on this machine".into()),
        (false, false) => (
            Grade::Note,
            Fault::new("the connection is not encrypted")
                .remedy("remove sslmode=disable from the URL"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_tells_of_a_connection_that_is_not_encrypted() {
        let said = |tls, address| {
            let (grade, finding) = encryption(tls, address);
            (
                matches!(grade, Grade::Note),
                finding.facts() == "the connection is not encrypted"
                    && finding.hint().is_some_and(|hint| hint.contains("remove sslmode=disable")),
            )
        };
        assert_eq!(said(false, Some("10.0.0.1")), (true, true));
        for (tls, address) in [(true, Some("10.0.0.1")), (false, Some("127.0.0.1")), (false, None)]
        {
            assert_eq!(said(tls, address), (false, false));
        }
    }
}
