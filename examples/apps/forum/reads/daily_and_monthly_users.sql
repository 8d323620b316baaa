-- For each day, its users, those of the 28 days that end with it, and the share of the one in the other.
SELECT bucket, day.users AS daily, month.users AS monthly, round(day.users::numeric / month.users, 4) AS share
FROM stats.active_daily day JOIN stats.active_28_days month USING (bucket)
WHERE bucket < (:'until'::timestamptz AT TIME ZONE 'America/Sao_Paulo')::date
