-- Events of 90 days. A few entities get most of them, and one in thirty is a purchase. They are in
-- the table in the order of their time, as an application writes them.
CREATE TABLE events (
    id bigint GENERATED ALWAYS AS IDENTITY,
    created_at timestamptz NOT NULL,
    entity_id integer NOT NULL,
    kind text NOT NULL,
    user_id bigint NOT NULL,
    amount numeric(10, 2)
);
SELECT setseed(0.42);
INSERT INTO events (created_at, entity_id, kind, user_id, amount)
SELECT '2026-01-01Z'::timestamptz + interval '90 days' * ((n - at) / {rows}),
       (1000 * entity ^ 3)::int + 1,
       CASE WHEN kind < 0.033 THEN 'purchase' WHEN kind < 0.35 THEN 'click' ELSE 'view' END,
       (100000 * person ^ 2)::bigint,
       CASE WHEN kind < 0.033 THEN round((5 + 95 * price ^ 2)::numeric, 2) END
FROM (
    SELECT n, random() AS at, random() AS entity, random() AS kind, random() AS person,
           random() AS price
    FROM generate_series(1, {rows}) n
) dice;
CREATE INDEX ON events (created_at);

-- One day with a million groups, each of two rows.
CREATE TABLE wide AS
SELECT '2026-01-01Z'::timestamptz + interval '1 day' * (n / {wide_rows}::float8) AS created_at,
       n % {wide_groups} AS entity_id, 'view'::text AS kind, n % 1000 AS user_id, 1.5::numeric AS amount
FROM generate_series(0, {wide_rows} - 1) n;
CREATE INDEX ON wide (created_at);

-- A year with ten events an hour, for many small slices.
CREATE TABLE small AS
SELECT '2025-01-01Z'::timestamptz + interval '6 minutes' * n AS created_at, (n % 3)::int AS entity_id,
       'view'::text AS kind, (n % 7)::bigint AS user_id, 1.5::numeric AS amount
FROM generate_series(0, 87599) n;
CREATE INDEX ON small (created_at);
