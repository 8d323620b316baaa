CREATE TABLE crates (
    id int PRIMARY KEY,
    name text NOT NULL
);

CREATE TABLE versions (
    id int PRIMARY KEY,
    crate_id int NOT NULL REFERENCES crates,
    num text NOT NULL,
    yanked boolean NOT NULL DEFAULT false
);

-- One row for each version and day of UTC, which grows by batches while log files arrive. Rows of more
-- than 90 days ago are exported, and deleted here.
CREATE TABLE version_downloads (
    version_id int NOT NULL REFERENCES versions,
    date date NOT NULL,
    downloads int NOT NULL,
    PRIMARY KEY (version_id, date)
);
CREATE INDEX ON version_downloads (date);

-- The exported rows. A registry has them as files elsewhere; here they serve the truth.
CREATE TABLE exported_downloads (LIKE version_downloads);
