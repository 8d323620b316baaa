-- One row for each flag, application, environment and hour. Clients report several times an hour, so
-- a row grows until its hour is over, and later where a client was offline.
CREATE TABLE client_metrics_env (
    feature_name text NOT NULL,
    app_name text NOT NULL,
    environment text NOT NULL,
    "timestamp" timestamptz NOT NULL,
    yes bigint NOT NULL DEFAULT 0,
    no bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (feature_name, app_name, environment, "timestamp")
);
CREATE INDEX ON client_metrics_env ("timestamp");

-- The same by variant.
CREATE TABLE client_metrics_env_variants (
    feature_name text NOT NULL,
    app_name text NOT NULL,
    environment text NOT NULL,
    "timestamp" timestamptz NOT NULL,
    variant text NOT NULL,
    count bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (feature_name, app_name, environment, "timestamp", variant)
);
CREATE INDEX ON client_metrics_env_variants ("timestamp");
