-- A year of an application's events. A few entities get most of them. Evenings and the present get
-- more than mornings and the past. One event in thirty is a purchase.
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
SELECT day + interval '1 day' * ((hour_a + hour_b) / 2),
       (200 * entity ^ 3)::int + 1,
       kind,
       (20000 * person ^ 2)::bigint,
       CASE WHEN kind = 'purchase' THEN round((5 + 95 * price ^ 2)::numeric, 2) END
FROM (
    SELECT date_trunc('day', now(), 'UTC') - interval '1 day' * (1 + floor(364.999 * (1 - sqrt(random())))) AS day,
           random() AS hour_a, random() AS hour_b, random() AS entity, random() AS person,
           random() AS price, (ARRAY['view', 'view', 'click', 'view', 'click', 'view'])[1 + floor(random() * 6)::int] AS other,
           random() < 0.033 AS bought
    FROM generate_series(1, 600000)
) dice, LATERAL (SELECT CASE WHEN bought THEN 'purchase' ELSE other END AS kind) named;
CREATE INDEX ON events (created_at);
ANALYZE events;
