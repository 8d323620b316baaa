-- What the probes of each region found. The time is in seconds since 1970.
CREATE TABLE monitoring_data (
    monitor_tag text NOT NULL,
    region text NOT NULL,
    "timestamp" bigint NOT NULL,
    status text NOT NULL,
    latency real,
    type text NOT NULL DEFAULT 'realtime',
    PRIMARY KEY (monitor_tag, region, "timestamp")
);
CREATE INDEX ON monitoring_data ("timestamp");
