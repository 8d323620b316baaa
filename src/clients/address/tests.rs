use super::*;
use crate::model::hint::Hinted as _;

fn url(text: &str) -> DatabaseUrl {
    DatabaseUrl::new(text).unwrap()
}

#[test]
fn neither_debug_nor_display_shows_a_password() {
    for (text, display) in [
        ("postgres://app:hunter2@db:5432/x?sslmode=require", "postgres://app:***@db:5432/x?…"),
        ("postgresql://app:hun@ter2@db/x", "postgres://app:***@db/x"),
        ("postgres://app:hun:ter2@[::1]:5432/x", "postgres://app:***@[::1]:5432/x"),
        ("postgres://app@db", "postgres://app@db"),
        ("postgres://db/x?password=hunter2", "postgres://db/x?…"),
        ("postgres://:hunter2@db/x", "postgres://:***@db/x"),
    ] {
        assert_eq!(url(text).to_string(), display);
        assert_eq!(format!("{:?}", url(text)), format!("DatabaseUrl({display})"));
        assert_eq!(url(text).expose(), text);
    }
}

#[test]
fn an_address_that_cannot_be_split_safely_is_refused() {
    for text in [
        "",
        "mysql://app:hunter2@db/x",
        "app:hunter2@db/x",
        "postgres://app:hun/ter2@db/x",
        "postgres://app:12?ter2@db/x",
        "postgres://app:12#ter2@db/x",
        "postgres://app:12#ter2",
        "postgres://app:hunter2@db:port/x",
        "postgres://app:hunter2@db:/x",
        "postgres://app:hunter2@/x",
        "postgres:///x",
        "postgres://app:hun ter2@db/x",
        "postgres://app:hunter2@db/x\n",
        "postgres://app:hunter2@db/x?connect_timeout=hunter2",
        "postgres://app:hunter2@db/x?connect_timeout=-1",
    ] {
        let fault = DatabaseUrl::new(text).unwrap_err().in_one_line();
        assert!(!fault.contains("ter2") && !fault.contains("hun"), "{fault}");
    }
}

#[test]
fn the_time_to_connect_is_that_of_the_address() {
    for (text, seconds) in [
        ("postgres://app@db/x", None),
        ("postgres://app@db/x?connect_timeout=30", Some(30)),
        ("postgres://app@db/x?connect_timeout=2&connect_timeout=60&host=b", Some(60)),
        ("postgres://app@db/x?connect_timeout=0", Some(900)),
        ("postgres://app@db/x?connect_timeout=100000", Some(900)),
        // Words in other places have no effect.
        (
            "postgres://app:connect_timeout=9@db/connect_timeout=9?application_name=connect_timeout=9",
            None,
        ),
    ] {
        assert_eq!(url(text).connect_timeout(), seconds.map(Duration::from_secs), "{text}");
        assert!(!url(text).for_driver().contains("connect_timeout="), "{text}");
    }
}

#[test]
fn a_loopback_server_is_recognised_wherever_the_host_is_named() {
    for text in [
        "postgres://app@localhost/x",
        "postgres://app@127.0.0.1:5432/x",
        "postgres://app@127.8.0.1/x",
        "postgres://app@[::1]:5432/x",
        "postgres://app@%2Fvar%2Frun%2Fpostgresql/x",
        "postgres:///x?host=/var/run/postgresql",
    ] {
        assert!(url(text).is_loopback(), "{text}");
    }
    for text in [
        "postgres://localhost@db.example.com/x",
        "postgres://app@localhost.example.com/x",
        "postgres://app@localhost/x?host=db.example.com",
        "postgres://app@localhost/x?ho%73t=db.example.com",
        "postgres://app@10.0.0.1/x",
        "postgres://app@[::2]/x",
    ] {
        assert!(!url(text).is_loopback(), "{text}");
    }
}

/// The driver's view of the address.
fn driver(text: &str) -> sqlx::postgres::PgConnectOptions {
    crate::clients::db::options(&url(text), false).unwrap()
}

#[test]
fn every_part_of_an_address_means_what_it_means_for_libpq() {
    for (text, user, host, socket, port, database) in [
        ("postgres://u:p@db/x", "u", Some("db"), None, 5432, Some("x")),
        ("POSTGRES://u@db:5433/x", "u", Some("db"), None, 5433, Some("x")),
        ("postgresql://u%40v:p%25q@db", "u@v", Some("db"), None, 5432, None),
        ("postgres://u@[::1]:5433/x", "u", Some("::1"), None, 5433, Some("x")),
        ("postgres://u@[fe80::1%25eth0]/x", "u", Some("fe80::1%eth0"), None, 5432, Some("x")),
        ("postgres://u@h/x?host=::1", "u", Some("::1"), None, 5432, Some("x")),
        ("postgres://u@/x?host=/run/pg", "u", None, Some("/run/pg"), 5432, Some("x")),
        ("postgres://u@%2Frun%2Fpg:5433/x", "u", None, Some("/run/pg"), 5433, Some("x")),
        ("postgres:///x?host=db&user=u", "u", Some("db"), None, 5432, Some("x")),
        ("postgres://u@db/x?port=1&port=2", "u", Some("db"), None, 2, Some("x")),
        ("postgres://u@db:7/x?port=", "u", Some("db"), None, 5432, Some("x")),
        ("postgres://u@db/x?dbname=y%20z&user=v", "v", Some("db"), None, 5432, Some("y z")),
        ("postgres://u:@db/a%2Fb?", "u", Some("db"), None, 5432, Some("a/b")),
        ("postgres://u@db/x?hostaddr=10.0.0.1&host=", "u", Some("10.0.0.1"), None, 5432, Some("x")),
        (
            "postgres://u@db/x?channel_binding=prefer&sslsni=1",
            "u",
            Some("db"),
            None,
            5432,
            Some("x"),
        ),
    ] {
        let options = driver(text);
        assert_eq!(options.get_username(), user, "{text}");
        assert_eq!(options.get_socket().and_then(|path| path.to_str()), socket, "{text}");
        if let Some(host) = host {
            assert_eq!(options.get_host(), host, "{text}");
        }
        assert_eq!(options.get_port(), port, "{text}");
        assert_eq!(options.get_database(), database, "{text}");
    }
    assert_eq!(url("postgres://u@[::1]/x").place(), "[::1]:5432");
    assert_eq!(url("postgres://u@/x?host=/run/pg").place(), "/run/pg:5432");
}

#[test]
fn encryption_is_as_libpq_would_have_it_or_better() {
    for (options, mode) in [
        ("", "VerifyFull"),
        ("?sslmode=require", "Require"),
        ("?sslmode=REQUIRE", "Require"),
        ("?ssl=true", "Require"),
        ("?sslmode=require&sslrootcert=ca.pem", "VerifyCa"),
        ("?sslrootcert=ca.pem", "VerifyFull"),
        ("?sslrootcert=system", "VerifyFull"),
        ("?sslmode=verify-full&sslrootcert=system", "VerifyFull"),
        ("?ssl-mode=verify-ca&ssl-ca=ca.pem", "VerifyCa"),
        ("?sslmode=prefer", "Prefer"),
        ("?sslmode=disable", "Disable"),
    ] {
        let found = driver(&format!("postgres://u@db.example.com/x{options}")).get_ssl_mode();
        assert_eq!(format!("{found:?}"), mode, "{options}");
    }
}

#[test]
fn what_providers_let_one_copy_connects_or_says_what_to_remove() {
    let neon = "postgresql://u:hunter2@ep-a-pooler.eu.aws.neon.tech/db?sslmode=require";
    for text in [
        neon,
        &format!("{neon}&options=endpoint%3Dep-a"),
        "postgres://postgres.ref:hunter2@aws-0-eu.pooler.supabase.com:6543/postgres",
        "postgres://u:hunter2@ec2-1.compute.amazonaws.com:5432/d1?sslmode=require",
        "postgres://u:hunter2@db/x?application_name=shop&options=-c%20search_path%3Dshop",
    ] {
        assert!(driver(text).get_username().contains(['u', 'p']), "{text}");
    }
    assert_eq!(
        driver("postgres://u@db/x?application_name=shop").get_application_name(),
        Some("shop")
    );
    assert_eq!(driver("postgres://u@db/x").get_application_name(), Some("tallymark"));
    let options = driver("postgres://u@db/x?options=-c%20search_path%3Dshop");
    assert_eq!(options.get_options(), Some("-c search_path=shop"));
}

/// Options that do not work, with words of the refusal.
const REFUSED: &[(&str, &str)] = &[
    (
        "channel_binding=require",
        "hint: remove it from the address; without an sslmode, or with sslmode=verify-full",
    ),
    ("target_session_attrs=read-write", "name the primary"),
    ("load_balance_hosts=random", "name the primary"),
    ("sslpassword=hunter2", "without a password"),
    ("sslcrl=hunter2", "revocation lists"),
    ("passfile=/hunter2", "PGPASSFILE"),
    ("service=hunter2", "host, user, password"),
    ("keepalives=1", "remove it"),
    ("keepalives_idle=30", "remove it"),
    ("tcp_user_timeout=30", "remove it"),
    ("gssencmode=require", "GSS"),
    ("require_auth=scram-sha-256", "remove it"),
    ("requirepeer=postgres", "remove it"),
    ("ssl_min_protocol_version=TLSv1.3", "TLS 1.2 or 1.3"),
    ("sslnegotiation=direct", "remove it"),
    ("sslcompression=1", "remove it"),
    ("client_encoding=latin1", "UTF-8"),
    ("replication=database", "remove it"),
    ("schema=public", "Prisma"),
    ("pgbouncer=true", "Prisma"),
    ("connection_limit=1", "Prisma"),
    ("sslmode=no-verify", "sslmode=require"),
    ("sslmode=allow", "prefer"),
    ("sslmode=hunter2", "verify-full"),
    ("sslmode=require&sslrootcert=system", "verify-full"),
    ("ssl=hunter2", "sslmode=disable"),
    ("uselibpqcompat=true", "node-postgres"),
    ("currentSchema=a", "JDBC"),
    ("statement-cache-capacity=0", "sqlx"),
    ("options[a]=b", "options"),
    ("sslmod=require", "did you mean `sslmode`"),
    ("ssl_mode=require", "did you mean `sslmode`"),
    ("applicationname=require", "did you mean `application_name`"),
    ("connect-timeout=3", "did you mean `connect_timeout`"),
    ("colour=hunter2", "`colour`"),
    ("hostaddr=db", "hostaddr"),
    ("host=a,b", "several hosts"),
    ("port=1,2", "several hosts"),
    ("port=hunter2", "host:5432"),
    ("host=%40abstract", "abstract socket"),
    ("connect_timeout=soon", "connect_timeout=15"),
    ("hunter2", "name=value"),
    ("password=a&hunter2", "%26"),
    ("password=a&hunter2=b", "%26"),
    ("user=%zz", "%25"),
];

/// Every unsupported option, by its name, with the remedy, and without its value.
#[test]
fn an_option_that_does_not_work_is_refused_by_name() {
    for (query, words) in REFUSED {
        let fault = DatabaseUrl::new(
            format!("postgres://u:p@/x?host=db&{query}").replace("?host=db&host", "?host"),
        )
        .unwrap_err();
        assert!(fault.hint().is_some(), "{query}: {fault}");
        let fault = fault.in_one_line();
        assert!(fault.contains(words), "{query}: {fault}");
        assert!(!fault.contains("hunter2"), "{query}: {fault}");
    }
    for (text, words) in [
        ("postgres://u:p@a,b/x", "several hosts"),
        ("postgres://u:p@a:1,b:2/x", "several hosts"),
        ("postgres://u:p@a:5432,5433/x", "several hosts"),
        ("postgres://u:p@a/x?hostaddr=10.0.0.1", "remove hostaddr"),
        ("postgresql+psycopg2://u:p@a/x", "without it"),
        ("postgres+asyncpg://u:p@a/x", "without it"),
        ("jdbc:postgresql://a/x?user=u", "JDBC"),
        ("prisma+postgres://a/?api_key=hunter2", "Prisma"),
        ("postgres://u:p@a:0/x", "host:5432"),
    ] {
        let fault = DatabaseUrl::new(text).unwrap_err().in_one_line();
        assert!(fault.contains(words) && !fault.contains("hunter2"), "{text}: {fault}");
    }
}

#[test]
fn the_reference_lists_every_option_that_works() {
    let reference = include_str!("../../../docs/CONFIG.md");
    for name in options::working() {
        assert!(reference.contains(&format!("`{name}`")), "{name}");
    }
}
