SELECT date_trunc('quarter', date)::date AS bucket, sum(downloads) AS downloads,
    count(DISTINCT version_id) AS versions
FROM (TABLE version_downloads UNION ALL TABLE exported_downloads) d
WHERE date < :'until'::timestamptz AT TIME ZONE 'UTC'
GROUP BY 1
