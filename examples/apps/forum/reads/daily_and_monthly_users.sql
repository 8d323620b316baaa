-- For each day, its users, those of the 28 days that end with it, and the share of the one in the other.
SELECT day.bucket, day.users AS daily, past.users AS monthly, round(day.users::numeric / past.users, 4) AS share
FROM stats.active_daily day, LATERAL (
    SELECT tallymark.unique_count(tallymark.merge_sets(users_set)) AS users FROM stats.active_daily
    WHERE bucket > day.bucket - 28 AND bucket <= day.bucket
) past
WHERE day.bucket < (:'until'::timestamptz AT TIME ZONE 'America/Chicago')::date
