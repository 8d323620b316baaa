-- 110 days: thirty versions of ten crates, of which some come later and some days have no download.
INSERT INTO crates SELECT n, 'crate-' || n FROM generate_series(1, 10) n;
INSERT INTO versions SELECT n, 1 + n % 10, '0.' || n || '.0' FROM generate_series(1, 30) n;

INSERT INTO version_downloads
SELECT versions.id, day::date, 1 + h % 5000
FROM versions, generate_series('2025-01-01'::timestamp, '2025-04-20', '1 day') day,
    LATERAL (SELECT abs(hashtext(versions.id || day::text)) AS h) hash
WHERE h % 7 > 0 AND day >= '2025-01-01'::timestamp + versions.id * interval '2 days';

ANALYZE crates, versions, version_downloads;
