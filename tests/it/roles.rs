//! The shipped recipes for Tallymark's own role, run as they are.

use std::fs;
use std::path::Path;

use crate::support::cli::{Place, execute, lines};

const EVENTS: &str = "CREATE TABLE secrets (x int); INSERT INTO secrets VALUES (1); \
    ALTER TABLE events ENABLE ROW LEVEL SECURITY";

/// With each of them the whole job works, and everything else is forbidden. They run one after
/// another, as all create the same role.
#[tokio::test]
async fn with_each_recipe_the_job_works_and_nothing_else_is_allowed() {
    for provider in ["rds", "supabase", "neon", "heroku"] {
        let (mut place, database) = Place::with_events(3).await;
        let admin = place.source_url.clone();
        // Only Supabase's recipe handles this.
        place
            .sql(if provider == "supabase" {
                EVENTS
            } else {
                EVENTS.split("; ALTER").next().unwrap()
            })
            .await;
        if provider == "heroku" {
            place.sql("CREATE ROLE tallymark_recipe LOGIN").await;
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("infra/sql/{provider}.sql"));
        // The recipe's role has the same name as the tests' superuser.
        let recipe = fs::read_to_string(path).unwrap().replace("tallymark", "tallymark_recipe");
        place.sql(&recipe).await;
        place.source_url = database.url_of("tallymark_recipe");
        place.target_url = place.source_url.clone();
        place.run(&["init"]).good();
        let check = place.run(&["check"]).good();
        assert!(!check.out.contains("bad "), "{provider}: {}", check.out);
        place.run(&["backfill", "daily", "--yes"]).good();
        place.run(&["verify"]).good();
        let sees_all = "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'usage')";
        let expected = if provider == "heroku" { "(f)" } else { "(t)" };
        assert_eq!(lines(&place.source_url, sees_all).await, [expected], "{provider}");
        for forbidden in
            ["TABLE public.secrets", "DELETE FROM public.events", "CREATE TABLE public.mine ()"]
        {
            let refused = try_execute(&place.source_url, forbidden).await.unwrap_err();
            assert!(refused.contains("permission denied"), "{provider}: {forbidden}: {refused}");
        }
        let gone = "REASSIGN OWNED BY tallymark_recipe TO CURRENT_USER; \
            DROP OWNED BY tallymark_recipe; DROP ROLE tallymark_recipe";
        execute(&admin, gone).await;
    }
}

/// Another role ran the statements of `init --dry-run` and forgot a grant.
#[tokio::test]
async fn a_grant_that_is_missing_is_told_with_its_sql_and_no_slice_fails_for_it() {
    let (mut place, database) = Place::with_events(3).await;
    let role = format!("worker_{:x}", fastrand::u64(..));
    place.run(&["init"]).good();
    let granted = format!(
        "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA stats, tallymark TO {role}; \
         GRANT SELECT ON events, stats.daily TO {role}; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA tallymark TO {role}"
    );
    place.sql(&granted).await;
    let admin = place.source_url.clone();
    place.source_url = database.url_of(&role);
    place.target_url.clone_from(&place.source_url);
    let mut remedy = String::new();
    for command in ["check", "run"] {
        let ended = place.run(&[command]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let said = ended.words();
        assert!(said.contains("which lacks DELETE, INSERT, UPDATE there"), "{said}");
        let grant = format!("GRANT DELETE, INSERT, UPDATE ON \"stats\".\"daily\" TO {role}");
        assert!(said.contains(&grant), "{said}");
        remedy = grant;
    }
    // No slice was claimed. A comparison only needs to read.
    place.run(&["verify"]).good();
    let status = place.json(&["status"]);
    assert_eq!(status["rollups"][0]["standings"]["missing"], 3, "{status}");
    execute(&admin, &remedy).await;
    place.run(&["check"]).good();
    place.run(&["run"]).good();
    assert_eq!(place.json(&["verify"])["slices"], 3);
    execute(&admin, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

async fn try_execute(url: &str, sql: &str) -> Result<(), String> {
    use sqlx::Connection as _;
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut connection).await;
    done.map(drop).map_err(|error| error.to_string())
}
