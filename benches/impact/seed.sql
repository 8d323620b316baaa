-- The application's database: 90 days of events in the order of their time, of few big and many
-- small entities, and items that it reads by their key and changes.
CREATE TABLE events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
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
    SELECT n, random() AS at, random() AS entity, random() AS kind, random() AS person, random() AS price
    FROM generate_series(1, {rows}) n
) dice;
CREATE INDEX ON events (created_at);

CREATE TABLE items (
    id integer PRIMARY KEY,
    name text NOT NULL,
    stock integer NOT NULL,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 80);
INSERT INTO items SELECT n, 'item ' || n || repeat('.', 60), 1000, now() FROM generate_series(1, {items}) n;
