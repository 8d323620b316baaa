//! The search path of Tallymark's role, with schemas where other roles may create objects.

use crate::support::cli::Place;

/// The role could call objects of other roles in a schema of the path. `check` names the schema,
/// the role and two remedies.
#[tokio::test]
async fn check_tells_of_roles_that_may_make_things_in_the_search_path() {
    let (place, _database) = Place::with_events(2).await;
    place.run(&["init"]).good();
    let says = || place.run(&["check"]).good().out.replace('\n', " ");
    assert!(!says().contains("search_path"), "{}", says());
    place.sql("GRANT CREATE ON SCHEMA public TO PUBLIC").await;
    let told = says();
    for words in
        ["schema public", "other roles", "SET search_path = pg_catalog", "REVOKE CREATE ON SCHEMA"]
    {
        assert!(told.contains(words), "`{words}` is not in {told}");
    }
    place
        .sql("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = pg_catalog', current_database()); END $$")
        .await;
    assert!(!says().contains("search_path"), "{}", says());
}
