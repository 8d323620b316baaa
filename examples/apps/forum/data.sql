-- Thirty days of 2019, with the last change of clocks in São Paulo: 80 topics in six categories, 250 users of whom most come rarely.
INSERT INTO categories SELECT n, 'category ' || n FROM generate_series(1, 6) n;
INSERT INTO topics SELECT n, 1 + n % 6, 'topic ' || n FROM generate_series(1, 80) n;

INSERT INTO posts (topic_id, user_id, post_type, word_count, created_at)
SELECT 1 + h % 80, nullif(h % 250 * (h % 7) / 7, 9), 1 + (h % 40 = 0)::int + (h % 60 = 0)::int, h % 300,
    '2019-02-01T02:00Z'::timestamptz + n * interval '23 minutes'
FROM generate_series(0, 1850) n, LATERAL (SELECT abs(hashint8(n)) AS h) hash;

INSERT INTO visits
SELECT 1 + h % 250 * (h / 250 % 9) / 8, 1 + h % 80, '2019-02-01T02:00Z'::timestamptz + n * interval '11 minutes'
FROM generate_series(0, 3870) n, LATERAL (SELECT abs(hashint8(n + 100000)) AS h) hash;

ANALYZE categories, topics, posts, visits;
